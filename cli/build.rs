//! Says whether the folder of reference data is there, so that tests which need it are shown as ignored where it is not.

fn main() {
    println!("cargo:rerun-if-env-changed=KADR_FIXTURES");
    println!("cargo:rustc-check-cfg=cfg(kadr_fixtures)");
    if std::env::var_os("KADR_FIXTURES").is_some() {
        println!("cargo:rustc-cfg=kadr_fixtures");
    }
}
