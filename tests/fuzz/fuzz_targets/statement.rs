//! A statement that is taken means the same when made again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::Statement;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(statement) = Statement::decode(bytes) {
        assert_eq!(Statement::decode(&statement.encode()), Ok(statement));
    }
});
