//! Certificate chains of signers, write-once, named by fingerprint.
