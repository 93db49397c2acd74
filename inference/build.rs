//! Says whether the folder of reference data and the peers' environment are there, so that tests which need them are shown as
//! ignored where they are not.

fn main() {
    for (variable, name) in [("KADR_FIXTURES", "kadr_fixtures"), ("KADR_PEERS", "kadr_peers")] {
        println!("cargo:rerun-if-env-changed={variable}");
        println!("cargo:rustc-check-cfg=cfg({name})");
        if std::env::var_os(variable).is_some() {
            println!("cargo:rustc-cfg={name}");
        }
    }
}
