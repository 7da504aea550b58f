//! The program `watchline-collector`.
fn main() {}
