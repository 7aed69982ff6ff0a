//! The page of a made-up board, against a golden file, and what stays of a page that was there.

use std::{fs, path::Path};

use boon::{Compiler, Schemas};

use super::{part, renew};
use crate::{
    record::Line,
    report::{
        goals::GOALS,
        parse, plots,
        prose::{Earlier, Notes},
        sample,
    },
};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden(name: &str, text: &str) {
    let path = folder().join("golden").join(name);
    if std::env::var_os("NARROWS_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        fs::write(&path, text).expect("the golden file is written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{name} differs (NARROWS_BLESS=1 writes it anew):\n{text}"
    );
}

#[test]
fn the_page_of_a_board_reads_as_agreed() {
    let notes: Notes = toml::from_str(
        "[[cause]]\nof = \"mapping-slope\"\ntext = \"It is made up.\"\n\
        [[cause]]\nof = \"memory\"\ntext = \"It is met: this is not shown.\"\n\
        [[figure]]\nof = \"rss_kib\"\ntext = \"Read so.\"\n[[figure]]\nof = \"threads\"\ntext = \"Not there: not shown.\"\n",
    )
    .expect("notes");
    let earlier: Earlier = toml::from_str(
        "source = \"made up.\"\n[[figure]]\ngoal = \"exits\"\nvmm = \"other 1.0\"\nvalue = 2024\n",
    )
    .expect("earlier figures");
    let board = sample::full();
    let plots = plots::plots(&board);
    golden("page.md", &part(&board, &notes, &earlier, &plots));
    for (name, text) in plots {
        golden(name, &text);
    }
}

#[test]
fn what_a_vmm_said_at_last_is_left_to_the_data() {
    let mut board = sample::board();
    board.missing = vec!["a run: it does not stop; its last words:\nmany\nlines".to_owned()];
    let text = super::missing(&board);
    assert!(text.ends_with("\n* a run: it does not stop\n"), "{text}");
}

#[test]
fn a_page_of_nothing_claims_nothing() {
    let text = part(
        &sample::board(),
        &Notes::default(),
        &Earlier::default(),
        &[],
    );
    assert!(text.contains(&format!(
        "0 of {0} goals are met, 0 missed, {0} not measured",
        GOALS.len()
    )));
    assert!(
        !text.contains("| met |") && !text.contains("missed** |"),
        "{text}"
    );
}

#[test]
fn the_rest_of_a_page_stays() {
    let page = "# Performance\n\nold\n\n## Plan\n\ntext\n";
    let once = renew(page, "new\n");
    assert_eq!(
        once,
        "# Performance\n\n<!-- scoreboard: begin -->\nnew\n<!-- scoreboard: end -->\n\nold\n\n## Plan\n\ntext\n"
    );
    let twice = renew(&once, "newer");
    assert_eq!(twice, once.replace("new\n", "newer\n"));
    assert_eq!(renew(&twice, "newer"), twice);
}

#[test]
fn a_board_keeps_to_its_schema_and_comes_back_the_same() {
    let mut schemas = Schemas::new();
    let path = folder().join("../../docs/schema/scoreboard.schema.json");
    let schema = Compiler::new()
        .compile(&path.to_string_lossy(), &mut schemas)
        .expect("a schema");
    let board = sample::full();
    let text = serde_json::to_string_pretty(&board).expect("a board as text");
    let value = serde_json::from_str(&text).expect("a board is JSON");
    schemas
        .validate(&value, schema)
        .expect("a board keeps to its schema");
    assert_eq!(
        serde_json::from_str::<crate::record::Board>(&text).expect("a board again"),
        board
    );
    // What was written down last keeps to it too.
    if let Ok(stored) = fs::read_to_string(folder().join("../../docs/data/scoreboard.json")) {
        let value = serde_json::from_str(&stored).expect("the stored board is JSON");
        schemas
            .validate(&value, schema)
            .expect("the stored board keeps to its schema");
    }
}

#[test]
fn lines_are_records_reasons_or_versions() {
    let text = "{\"missing\": \"a: b\"}\r\n\n{\"name\": \"qemu\", \"version\": \"1\"}\n\
        {\"case\":\"code\",\"vmm\":\"narrows\",\"interface\":null,\"guest\":null,\"run\":1,\"work\":\"\",\"figures\":{},\"counts\":{}}\n";
    let lines = parse(text).expect("three lines");
    assert!(matches!(
        &lines[..],
        [Line::Missing(_), Line::Vmm(_), Line::Record(_)]
    ));
    for wrong in ["{\"case\":\"code\"}", "{\"other\": 1}", "text"] {
        let error = parse(&format!("{{\"missing\": \"a\"}}\n{wrong}")).expect_err("no line");
        assert!(error.starts_with("line 2: "), "{error}");
    }
}

#[test]
fn notes_and_earlier_figures_are_of_goals_and_figures_that_exist() {
    let read = |name: &str| fs::read_to_string(folder().join(name)).expect("a file");
    let notes: Notes = toml::from_str(&read("notes.toml")).expect("notes");
    let earlier: Earlier = toml::from_str(&read("earlier.toml")).expect("earlier figures");
    let goals = notes
        .cause
        .iter()
        .map(|note| &note.of)
        .chain(earlier.figure.iter().map(|figure| &figure.goal));
    for id in goals {
        assert!(GOALS.iter().any(|goal| goal.id == id), "no goal {id}");
    }
    for note in &notes.figure {
        assert!(
            crate::figure::figure(&note.of).is_some(),
            "no figure {}",
            note.of
        );
    }
}
