//! Tells the tests whether the reference data and the peer are there, so that without them they are reported as ignored, not as
//! passed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for (variable, name) in [("KADR_FIXTURES", "kadr_fixtures"), ("KADR_ONVIF_DEVICE", "kadr_onvif_device")] {
        println!("cargo:rerun-if-env-changed={variable}");
        println!("cargo:rustc-check-cfg=cfg({name})");
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            println!("cargo:rustc-cfg={name}");
        }
    }
}
