//! Accepts connections, checks what comes, hands it to the buffer, acknowledges.
