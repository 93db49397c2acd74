//! Tells the tests whether the reference data is there, so that without it they are reported as ignored, not as passed.

fn main() {
    println!("cargo:rerun-if-env-changed=KADR_FIXTURES");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(kadr_fixtures)");
    if std::env::var_os("KADR_FIXTURES").is_some_and(|folder| !folder.is_empty()) {
        println!("cargo:rustc-cfg=kadr_fixtures");
    }
}
