//! What `/status` answers.
