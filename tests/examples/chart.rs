//! `cargo run -p understudy-tests --example chart` draws the chart of the book and writes its table, from the figures that
//! `UNDERSTUDY_FIGURES=1 cargo bench -p understudy-tests --bench figures -- sync-or-transactions` stored.

fn main() -> std::io::Result<()> {
    for (file, text) in tests::chart::made_of(&tests::chart::read()) {
        std::fs::write(&file, text)?;
        println!("{}", file.display());
    }
    Ok(())
}
