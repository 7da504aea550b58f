/// `; did you mean …?` for the nearest word, if one is near.
pub(super) fn suggestion<'w>(found: &str, words: impl Iterator<Item = &'w str>) -> String {
    // A key is longer than this only by mistake, and the comparison costs the product of the lengths.
    if found.chars().count() > 64 {
        return String::new();
    }
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let found = plain(found);
    words
        .map(|word| (distance(&found, &plain(word)), word))
        .filter(|(distance, word)| *distance <= 1.max(word.len() / 3))
        .min()
        .map(|(_, word)| format!("; did you mean `{word}`?"))
        .unwrap_or_default()
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let changed = usize::from(from[i - 1] != to[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
