//! Writes the files that the book includes: `cargo run -p understudy-model --example write`.

fn main() -> std::io::Result<()> {
    for (path, text) in model::report::files(model::report::states()) {
        std::fs::write(path, text)?;
    }
    Ok(())
}
