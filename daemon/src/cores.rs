//! Which cores to keep threads on: a list, or `auto`, which reads what the system says of its cores.

use std::path::Path;

/// What the system says of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Core {
    number: usize,
    /// Its speed beside the fastest one's 1024; 1024 for all where the system does not tell.
    capacity: u32,
    /// The lowest number of those that share its arithmetic units.
    physical: usize,
}

/// The cores for so many threads, the caller's first.
///
/// # Errors
/// One sentence if the text is no list, names a core twice, or has other than one core a thread.
pub fn choose(text: &str, threads: Option<usize>) -> Result<Vec<usize>, String> {
    if text == "auto" {
        return automatic(&cores(Path::new("/sys/devices/system/cpu")), threads);
    }
    let cores = list(text).ok_or_else(|| {
        format!("{text:?} names no cores; write auto, or numbers such as 0-3 or 4,5")
    })?;
    if let Some(core) = cores.iter().enumerate().find(|(i, core)| cores[..*i].contains(core)) {
        return Err(format!("{text:?} names core {} twice; every thread needs its own", core.1));
    }
    match threads {
        Some(threads) if threads != cores.len() => Err(format!(
            "{text:?} names {} cores for {threads} threads; name as many cores as threads",
            cores.len()
        )),
        _ => Ok(cores),
    }
}

/// Numbers and ranges, as the system writes them: `0,2-3`.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last - first >= 4096 {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// Cores below a folder of the system's that are online.
fn cores(root: &Path) -> Vec<Core> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let online = read(&root.join("online")).and_then(|text| list(&text)).unwrap_or_default();
    let core = |number: usize| {
        let folder = root.join(format!("cpu{number}"));
        let capacity = read(&folder.join("cpu_capacity")).and_then(|text| text.trim().parse().ok());
        let siblings = read(&folder.join("topology/thread_siblings_list"));
        let physical = siblings.and_then(|text| list(&text)?.into_iter().min());
        Core { number, capacity: capacity.unwrap_or(1024), physical: physical.unwrap_or(number) }
    };
    online.into_iter().map(core).collect()
}

/// The fastest physical cores, one thread each; where more threads are asked for than there are, their siblings too.
fn automatic(cores: &[Core], threads: Option<usize>) -> Result<Vec<usize>, String> {
    let mut order: Vec<&Core> = cores.iter().collect();
    let second = |core: &Core| core.number != core.physical;
    order.sort_by_key(|core| (second(core), std::cmp::Reverse(core.capacity), core.number));
    let fastest = order.first().map_or(0, |core| core.capacity);
    let big = order.iter().filter(|core| core.capacity == fastest && !second(core)).count();
    let threads = threads.unwrap_or(big);
    if threads > order.len() || order.is_empty() {
        return Err(format!(
            "{threads} threads cannot be kept on {} cores; ask for fewer threads or leave the pinning out",
            order.len()
        ));
    }
    Ok(order[..threads].iter().map(|core| core.number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn big_cores_come_first() {
        let mut files = vec![("online".to_owned(), "0-5\n".to_owned())];
        for core in 0..6 {
            let capacity = if core < 4 { "414\n" } else { "1024\n" };
            files.push((format!("cpu{core}/cpu_capacity"), capacity.to_owned()));
            files.push((format!("cpu{core}/topology/thread_siblings_list"), format!("{core}\n")));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
        let folder = machine(&files);
        let cores = cores(folder.path());
        assert_eq!(automatic(&cores, None), Ok(vec![4, 5]));
        assert_eq!(automatic(&cores, Some(3)), Ok(vec![4, 5, 0]));
        assert!(automatic(&cores, Some(7)).unwrap_err().contains("7 threads cannot be kept on 6"));
    }

    #[test]
    fn threads_of_one_core_come_last() {
        let siblings = |core: usize| format!("cpu{core}/topology/thread_siblings_list");
        let names: Vec<String> = (0..4).map(siblings).collect();
        let folder = machine(&[
            ("online", "0-3"),
            (&names[0], "0-1"),
            (&names[1], "0-1"),
            (&names[2], "2-3"),
            (&names[3], "2-3"),
        ]);
        let cores = cores(folder.path());
        assert_eq!(automatic(&cores, None), Ok(vec![0, 2]));
        assert_eq!(automatic(&cores, Some(3)), Ok(vec![0, 2, 1]));
    }

    #[test]
    fn lists_are_read_and_mistakes_named() {
        assert_eq!(choose("0,2-3", None), Ok(vec![0, 2, 3]));
        assert_eq!(choose("3,1", Some(2)), Ok(vec![3, 1]));
        for (text, threads, words) in [
            ("", None, "names no cores"),
            ("big", None, "auto"),
            ("3-1", None, "names no cores"),
            ("0-9999999", None, "names no cores"),
            ("1,1", None, "core 1 twice"),
            ("0,1", Some(3), "2 cores for 3 threads"),
        ] {
            let sentence = choose(text, threads).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
