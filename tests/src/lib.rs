//! The whole line under test: real programs, numbered records in, the final output compared record by record.
