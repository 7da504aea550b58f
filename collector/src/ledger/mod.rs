//! (to come: ledger)
