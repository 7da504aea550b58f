//! Random days on a host.

use super::*;

/// What a random day on a host does.
#[derive(Debug, Clone)]
enum Deed {
    Append(usize, usize),
    AppendPart(usize),
    Rename(usize),
    CopyTruncate(usize),
    Turn,
    Kill(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (0..2_usize, 1..400_usize).prop_map(|(file, lines)| Deed::Append(file, lines)),
        2 => (0..2_usize).prop_map(Deed::AppendPart),
        2 => (0..2_usize).prop_map(Deed::Rename),
        1 => (0..2_usize).prop_map(Deed::CopyTruncate),
        5 => Just(Deed::Turn),
        2 => (0..4_usize).prop_map(Deed::Kill),
    ];
    prop::collection::vec(deed, 1..40)
}

proptest! {

    /// TAILING 9, 10, 12, 13, 19, 32. The ground truth are numbered lines; each is sealed exactly once and in order, whatever happens to the
    /// files and to the process.
    #[test]
    fn every_line_is_sealed_exactly_once(deeds in deeds(), wide in any::<bool>()) {
        let patterns: &[&str] = if wide { &["f0.log*", "f1.log*"] } else { &["f0.log", "f1.log"] };
        let mut host = Host::running(patterns);
        let mut written = 0;
        let mut open_line = [false; 2];
        for deed in &deeds {
            match *deed {
                Deed::Append(file, lines) => {
                    let mut text = String::new();
                    if std::mem::take(&mut open_line[file]) {
                        text.push_str(" ends\n");
                    }
                    for _ in 0..lines {
                        text.push_str(&format!("{file} {written} {}\n", "x".repeat(written % 300)));
                        written += 1;
                    }
                    host.append(&format!("f{file}.log"), text);
                }
                Deed::AppendPart(file) if !open_line[file] => {
                    host.append(&format!("f{file}.log"), format!("{file} {written} begins"));
                    written += 1;
                    open_line[file] = true;
                }
                Deed::Rename(file) if host.path(&format!("f{file}.log")).exists() => {
                    if std::mem::take(&mut open_line[file]) {
                        host.append(&format!("f{file}.log"), " ends\n");
                    }
                    if host.source.is_none() || !host.bodies().iter().any(|body| body.starts_with(&format!("{file} "))) {
                        // The first file of a name has to be seen under it: nothing tells what it was called before.
                        host.turn();
                    }
                    host.rotate(&format!("f{file}.log"));
                }
                Deed::CopyTruncate(file) if host.path(&format!("f{file}.log")).exists() => {
                    if std::mem::take(&mut open_line[file]) {
                        host.append(&format!("f{file}.log"), " ends\n");
                    }
                    // A file that was never seen before it is cut cannot be known again in its copy.
                    host.turn();
                    let name = format!("f{file}.log-{written}");
                    host.copy(&format!("f{file}.log"), &name);
                    host.truncate(&format!("f{file}.log"));
                }
                Deed::Turn => host.turn(),
                Deed::Kill(frames) => {
                    host.turn_until(frames);
                    host.restart();
                }
                _ => {}
            }
        }
        host.turns(8);
        let mut seen = vec![0; written];
        let mut last = [0; 2];
        for body in host.bodies() {
            let mut words = body.split(' ');
            let (Some(file), Some(number)) = (words.next().and_then(|w| w.parse::<usize>().ok()), words.next()) else {
                continue; // the second part of a line that was flushed
            };
            let number: usize = number.parse().unwrap();
            seen[number] += 1;
            prop_assert!(number >= last[file], "{number} after {} in file {file}", last[file]);
            last[file] = number;
        }
        let wrong: Vec<_> = seen.iter().enumerate().filter(|(_, count)| **count != 1).take(10).collect();
        prop_assert!(wrong.is_empty(), "(number, times): {wrong:?}, gaps: {:?}", host.gaps());
        prop_assert!(host.gaps().is_empty(), "{:?}", host.gaps());
    }
}
