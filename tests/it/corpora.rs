//! The fuzz targets' checks over their corpora, with the stable compiler: no entry makes a parser panic or contradict
//! its second judge. What a fuzzer finds becomes an entry, and is a regression test from then on.

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn every_corpus_passes_the_checks_of_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<String> = files(&corpora).map(|path| name(&path)).collect();
    folders.sort();
    let mut targets = fuzz::TARGETS.map(|(name, _)| name);
    targets.sort_unstable();
    assert_eq!(folders, targets, "a folder for each target");
    for (target, check) in fuzz::TARGETS {
        let mut entries = 0;
        for path in files(&corpora.join(target)) {
            println!("{target}: {}", name(&path));
            check(&std::fs::read(&path).unwrap());
            entries += 1;
        }
        assert!(entries >= 5, "{target} has {entries} entries");
        // Cut off anywhere, an entry is as good as another.
        for path in files(&corpora.join(target)) {
            let input = std::fs::read(&path).unwrap();
            (0..input.len().min(256)).for_each(|length| check(&input[..length]));
        }
    }
}

/// The manifest of the fuzz targets names each of them.
#[test]
fn every_target_is_built() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for (target, _) in fuzz::TARGETS {
        assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
    }
    fuzz::check("json", b"{}");
}

fn files(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
