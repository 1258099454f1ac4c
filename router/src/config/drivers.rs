//! Which Redis to use, from `driver`, `--redis` and older keys.

use shared::driver::Driver;
use shared::secret::Secret;

use super::file::OneOrMany;
use super::read::Loaded;
use super::resolve::flag_error;
use super::{ConfigError, legacy};
use crate::cli::Cli;

/// The drivers: the first is read from, the last written to.
pub(super) fn drivers(
    cli: &Cli,
    loaded: &Loaded,
    warnings: &mut Vec<String>,
) -> Result<Vec<Driver>, ConfigError> {
    let file = &loaded.file;
    let older = legacy::drivers(loaded, warnings);
    let mut drivers = Vec::new();
    if !cli.redis.is_empty() {
        for text in &cli.redis {
            let driver = Driver::parse(text);
            drivers.push(driver.map_err(|error| flag_error("--redis", error.to_string()))?);
        }
    } else if let Some(texts) = &file.driver {
        for (index, text) in texts.list().iter().enumerate() {
            let key = match texts {
                OneOrMany::One(_) => "driver".to_owned(),
                OneOrMany::Many(_) => format!("driver.{index}"),
            };
            let driver = Driver::parse(text);
            drivers.push(driver.map_err(|error| loaded.error(&key, error.to_string()))?);
        }
    } else {
        drivers = older;
    }
    if drivers.is_empty() {
        drivers.push(Driver::default());
    }
    if let Some(path) = &cli.redis_password_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = format!("{} cannot be read: {error}", path.display());
            flag_error("--redis-password-file", problem)
        })?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            let problem = format!("{} is empty: expected the password in it", path.display());
            return Err(flag_error("--redis-password-file", problem));
        }
        let password = Secret::new(text);
        for driver in drivers.iter_mut().filter(|driver| driver.password.is_none()) {
            driver.password = Some(password.clone());
            driver.password_file = Some(path.clone());
        }
    }
    Ok(drivers)
}
