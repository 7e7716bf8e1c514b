//! Temperature and energy, where the board has sensors for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plantain_boards::Board;

use crate::sysfs;

/// Where Linux tells temperature and energy on machines without a profile.
const THERMAL: &str = "/sys/class/thermal/thermal_zone*/temp";
const POWER: [&str; 2] =
    ["/sys/class/powercap/intel-rapl:0/energy_uj", "/sys/class/hwmon/hwmon*/power1_input"];
/// How often power is read while a picture is drawn.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);

/// Sensors of this machine.
#[derive(Clone, Debug, Default)]
pub struct Sensors {
    thermal: Vec<PathBuf>,
    source: Option<Source>,
}

/// What energy is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A counter of microjoules.
    Counter(PathBuf),
    /// Power; this many of its units are a watt.
    Power(PathBuf, u32),
    /// Millivolts and milliamperes.
    Product(PathBuf, PathBuf),
}

impl Sensors {
    /// Those that the profile names, else the usual ones; `root` is `/` but in tests.
    pub fn find(board: Option<&Board>, root: &Path) -> Self {
        let files = |patterns: &[String]| -> Vec<PathBuf> {
            patterns.iter().flat_map(|pattern| sysfs::matching(root, pattern)).collect()
        };
        let (thermal, power) = match board {
            Some(board) => (files(&board.sensors.thermal), files(&board.sensors.power)),
            None => (files(&[THERMAL.into()]), files(&POWER.map(String::from))),
        };
        Sensors { thermal, source: Source::of(&power) }
    }

    /// The hottest sensor.
    pub fn temperature_celsius(&self) -> Option<f64> {
        let celsius = self.thermal.iter().filter_map(|path| Some(number(path)? / 1000.0));
        celsius.max_by(f64::total_cmp)
    }

    /// Starts to count energy; `None` where there is no sensor, or this process may not read it.
    pub fn meter(&self) -> Option<Meter> {
        let source = self.source.clone()?;
        if let Source::Counter(path) = &source {
            let start = number(path)?;
            return Some(Meter::Counter { path: path.clone(), start });
        }
        source.watts()?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let sampling = move || integrate(&source, &seen);
        let thread = std::thread::Builder::new().name("power".into()).spawn(sampling).ok()?;
        Some(Meter::Sampled { stop, thread })
    }
}

impl Source {
    /// The best that these files allow; alarms tell no number.
    fn of(files: &[PathBuf]) -> Option<Source> {
        let named = |fits: &dyn Fn(&str) -> bool| {
            files.iter().find(|path| fits(&path.file_name().unwrap_or_default().to_string_lossy()))
        };
        if let Some(path) = named(&|name| {
            name == "energy_uj" || (name.starts_with("energy") && name.ends_with("_input"))
        }) {
            return Some(Source::Counter(path.clone()));
        }
        // hwmon tells microwatts, IIO milliwatts.
        if let Some(path) = named(&|name| name.starts_with("power") && name.ends_with("_input")) {
            return Some(Source::Power(path.clone(), 1_000_000));
        }
        if let Some(path) = named(&|name| name.starts_with("in_power") && name.ends_with("_input"))
        {
            return Some(Source::Power(path.clone(), 1000));
        }
        let volts = named(&|name| name.starts_with("in") && name.ends_with("_input"))?;
        let amperes = named(&|name| name.starts_with("curr") && name.ends_with("_input"))?;
        Some(Source::Product(volts.clone(), amperes.clone()))
    }

    fn watts(&self) -> Option<f64> {
        match self {
            Source::Counter(_) => None,
            Source::Power(path, units) => Some(number(path)? / f64::from(*units)),
            Source::Product(volts, amperes) => Some(number(volts)? * number(amperes)? / 1e6),
        }
    }
}

/// Energy that is being counted.
pub enum Meter {
    /// By the hardware.
    Counter {
        /// Its file.
        path: PathBuf,
        /// What it said at the start.
        start: f64,
    },
    /// By a thread that reads power.
    Sampled {
        /// Asks it to end.
        stop: Arc<AtomicBool>,
        /// Ends with the sum.
        thread: JoinHandle<Option<f64>>,
    },
}

impl Meter {
    /// Joules since the start; `None` if the sensor failed.
    pub fn joules(self) -> Option<f64> {
        match self {
            Meter::Counter { path, start } => {
                let end = number(&path)?;
                let range = || number(&path.with_file_name("max_energy_range_uj"));
                let passed = if end >= start { end - start } else { end + range()? - start };
                Some(passed / 1e6)
            }
            Meter::Sampled { stop, thread } => {
                stop.store(true, Ordering::Release);
                thread.thread().unpark();
                thread.join().ok().flatten()
            }
        }
    }
}

/// Adds power up by the trapezoidal rule until it is told to stop.
fn integrate(source: &Source, stop: &AtomicBool) -> Option<f64> {
    let (mut at, mut watts, mut joules) = (Instant::now(), source.watts()?, 0.0);
    loop {
        let is_last = stop.load(Ordering::Acquire);
        let (now, next) = (Instant::now(), source.watts()?);
        joules += (watts + next) / 2.0 * now.duration_since(at).as_secs_f64();
        (at, watts) = (now, next);
        if is_last {
            return Some(joules);
        }
        std::thread::park_timeout(SAMPLE_PERIOD);
    }
}

fn number(path: &Path) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that stands for `/`, with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_boards_own_sensors_are_read() {
        let orin = plantain_boards::find("jetson-orin-nano").unwrap();
        let root = machine(&[
            ("sys/class/thermal/thermal_zone0/temp", "41500\n"),
            ("sys/class/thermal/thermal_zone1/temp", "48250\n"),
            ("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_input", "5000\n"),
            ("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input", "2000\n"),
        ]);
        let sensors = Sensors::find(Some(orin), root.path());
        assert_eq!(sensors.temperature_celsius(), Some(48.25));
        let start = Instant::now();
        let meter = sensors.meter().unwrap();
        std::thread::sleep(Duration::from_millis(120));
        let joules = meter.joules().unwrap();
        let most = 10.0 * start.elapsed().as_secs_f64();
        assert!((1.1..=most).contains(&joules), "{joules} J of at most {most} J at 10 W");
    }

    #[test]
    fn counters_of_energy_are_read_across_their_end() {
        let counter = "sys/class/powercap/intel-rapl:0/energy_uj";
        let range = "sys/class/powercap/intel-rapl:0/max_energy_range_uj";
        let root = machine(&[(counter, "9000000\n"), (range, "10000000\n")]);
        let sensors = Sensors::find(None, root.path());
        let meter = sensors.meter().unwrap();
        std::fs::write(root.path().join(counter), "500000\n").unwrap();
        assert_eq!(meter.joules(), Some(1.5));
    }

    #[test]
    fn an_alarm_is_no_sensor_of_energy() {
        let zero = plantain_boards::find("rpi-zero2w").unwrap();
        let root = machine(&[("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "0\n")]);
        let sensors = Sensors::find(Some(zero), root.path());
        assert!(sensors.meter().is_none() && sensors.temperature_celsius().is_none());
    }

    #[test]
    fn units_are_those_of_the_drivers() {
        for (name, units) in [("power1_input", 1_000_000), ("in_power0_input", 1000)] {
            let file = PathBuf::from(name);
            let source = Source::of(std::slice::from_ref(&file));
            assert_eq!(source, Some(Source::Power(file, units)));
        }
    }
}
