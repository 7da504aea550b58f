//! An item of a spool, or a batch from the line: within the limits when taken, and the same again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use watchline_proto::{Seal, stored};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = stored::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(stored::check(&batch), Ok(()));
        assert_eq!(stored::decode(stored::encode(&batch)).as_ref(), Ok(&batch));
        let _ = Seal::decode(&batch.seal);
        for receipt in &batch.receipts {
            let _ = stored::Receipt::try_from(receipt);
        }
    }
});
