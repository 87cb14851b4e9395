//! Lines that are torn, damaged or changed.

use super::*;

/// Two decisions in lines of their own, then a block and two decisions that went to the disk
/// together.
fn sample(state_dir: &Path) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut hash = line::GENESIS.to_owned();
    let mut put = |lines: &mut Vec<u8>, seq: u64, batch| {
        hash = line::decision(lines, &decision(seq, seq as u16 * 100), batch, &hash).unwrap();
    };
    put(&mut lines, 1, 1);
    put(&mut lines, 2, 2);
    line::block(&mut lines, &"counts").unwrap();
    put(&mut lines, 3, 3);
    put(&mut lines, 4, 3);
    fs::create_dir_all(state_dir.join("journal")).unwrap();
    fs::write(file(state_dir), &lines).unwrap();
    lines
}

/// Where the lines of a text begin, and where it ends.
fn starts(text: &[u8]) -> Vec<usize> {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).collect()
}

fn refusal(state_dir: &Path) -> (usize, String) {
    match open::<String, Vec<u64>>(state_dir, JournalSettings::default()) {
        Err(StartError::Journal { line, problem, .. }) => (line, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_torn_last_line_is_cut_at_every_byte() {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), &[(1, 100), (2, 200)]);
    let whole = fs::read(file(state_dir.path())).unwrap();
    let first = starts(&whole)[1];
    for length in first..whole.len() {
        fs::write(file(state_dir.path()), &whole[..length]).unwrap();
        assert_eq!(weights(state_dir.path()), [100], "{length} bytes");
        assert_eq!(fs::metadata(file(state_dir.path())).unwrap().len(), first as u64);
    }
    write(state_dir.path(), &[(2, 250)]);
    assert_eq!(weights(state_dir.path()), [100, 250]);
}

#[test]
fn every_kind_of_last_line_may_be_torn_at_every_byte() {
    let state_dir = tempfile::tempdir().unwrap();
    let before = sample(state_dir.path());
    let mut lasts = vec![Vec::new(); 3];
    line::block(&mut lasts[0], &"counts").unwrap();
    let hash = read_journal(state_dir.path(), |_, _| {}).unwrap().hash().to_owned();
    lasts[1] = line::snapshot(&vec![1], "then", 4, &hash).unwrap();
    line::gap(&mut lasts[2], 17);
    for last in lasts {
        for length in 0..last.len() {
            let text = [&before, &last[..length]].concat();
            fs::write(file(state_dir.path()), text).unwrap();
            assert_eq!(weights(state_dir.path()), [100, 200, 300, 400]);
            assert_eq!(fs::metadata(file(state_dir.path())).unwrap().len() as usize, before.len());
        }
    }
}

#[test]
fn a_batch_that_is_torn_in_its_middle_is_cut_from_there() {
    let state_dir = tempfile::tempdir().unwrap();
    let whole = sample(state_dir.path());
    let starts = starts(&whole);
    let torn = |line: usize| {
        let mut text = whole.clone();
        text[starts[line] + 5..starts[line + 1] - 5].fill(0);
        fs::write(file(state_dir.path()), text).unwrap();
    };
    // A page that never reached the disk, with decisions of the same batch behind it.
    torn(3);
    assert_eq!(weights(state_dir.path()), [100, 200]);
    assert_eq!(fs::metadata(file(state_dir.path())).unwrap().len() as usize, starts[3]);
    // Of a block nobody depends on what follows: the chain shows that no decision is missing.
    torn(2);
    let found = found(state_dir.path());
    assert_eq!(found.decisions.len(), 4);
    assert_eq!(found.records[2], Record::Gap);
    // The decision before it was acknowledged on its own: that is not torn, it was destroyed.
    drop(found);
    torn(1);
    assert_eq!(refusal(state_dir.path()).0, 2);
    torn(0);
    assert_eq!(refusal(state_dir.path()).0, 1);
}

#[test]
fn a_changed_decision_is_found_with_its_place() {
    let state_dir = tempfile::tempdir().unwrap();
    let whole = String::from_utf8(sample(state_dir.path())).unwrap();
    let check = |text: String, line: usize, says: &str| {
        fs::write(file(state_dir.path()), text).unwrap();
        let (at, problem) = refusal(state_dir.path());
        assert_eq!(at, line, "{problem}");
        assert!(problem.contains(says) && problem.contains("move the journal away"), "{problem}");
    };
    let changed = whole.replace("\"weight_bp\":200", "\"weight_bp\":900");
    check(changed, 2, "not the one that was written");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without = |gone: usize| {
        let kept = lines.iter().enumerate().filter(|(index, _)| *index != gone);
        kept.map(|(_, line)| *line).collect::<String>()
    };
    check(without(1), 3, "missing");
    let swapped = [lines[0], lines[3], lines[2], lines[1], lines[4]].concat();
    check(swapped, 2, "missing");
    let twice = [lines[0], lines[1], lines[1]].concat();
    check(twice, 3, "missing");
}

#[test]
fn a_snapshot_must_fit_the_decisions_before_it() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut text = sample(state_dir.path());
    text.extend(line::snapshot(&vec![1], "then", 9, "another chain").unwrap());
    line::block(&mut text, &"counts").unwrap();
    fs::write(file(state_dir.path()), text).unwrap();
    assert_eq!(refusal(state_dir.path()).0, 6);
}

#[test]
fn no_byte_of_an_old_decision_can_change_unnoticed() {
    let state_dir = tempfile::tempdir().unwrap();
    let whole = sample(state_dir.path());
    let second = starts(&whole)[1];
    let open = || open::<String, Vec<u64>>(state_dir.path(), JournalSettings::default());
    let expected = open().unwrap().decisions;
    for at in 0..second - 1 {
        let mut text = whole.clone();
        text[at] ^= 1;
        fs::write(file(state_dir.path()), &text).unwrap();
        // The batch's number is not part of the chain; all else is.
        let found = open().map(|found| found.decisions);
        assert!(found.as_ref().is_err() || *found.as_ref().unwrap() == expected, "byte {at}");
    }
}

#[test]
fn a_line_that_means_nothing_to_this_version_is_an_error_and_never_cut() {
    let state_dir = tempfile::tempdir().unwrap();
    for strange in ["{}", "{\"seq\":5,\"weight_bp\":1}", "{\"gap\":\"x\"}"] {
        let mut text = sample(state_dir.path());
        text.extend(strange.as_bytes());
        text.push(b'\n');
        fs::write(file(state_dir.path()), &text).unwrap();
        assert_eq!(refusal(state_dir.path()).0, 6, "{strange}");
        assert_eq!(fs::read(file(state_dir.path())).unwrap(), text, "nothing was changed");
    }
}
