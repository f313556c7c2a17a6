//! The console is embedded from `web/dist`; without it the program still builds and says what to do.

fn main() -> std::io::Result<()> {
    let dist = std::path::Path::new("../web/dist");
    std::fs::create_dir_all(dist)?;
    println!("cargo::rerun-if-changed=../web/dist");
    Ok(())
}
