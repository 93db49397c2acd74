//! The migrations are embedded by a macro, which cargo can't see: a new one has to rebuild the crate.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
