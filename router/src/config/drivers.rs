//! Which Redis to use, from `driver`, `--redis` and older keys.

use shared::driver::{Address, Driver, HostPort};
use shared::secret::Secret;

use super::ConfigError;
use super::file::{Loaded, OneOrMany};
use super::resolve::flag_error;
use crate::cli::Cli;

/// The drivers: the first is read from, the last written to.
pub(super) fn drivers(
    cli: &Cli,
    loaded: &Loaded,
    warnings: &mut Vec<String>,
) -> Result<Vec<Driver>, ConfigError> {
    let file = &loaded.file;
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
        drivers = legacy_drivers(loaded, warnings);
    }
    if drivers.is_empty() {
        drivers.push(Driver::default());
    }
    if let Some(path) = &cli.redis_password_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = format!("{} cannot be read: {error}", path.display());
            flag_error("--redis-password-file", problem)
        })?;
        let password = Secret::new(text.trim_end_matches(['\r', '\n']));
        for driver in drivers.iter_mut().filter(|driver| driver.password.is_none()) {
            driver.password = Some(password.clone());
            driver.password_file = Some(path.clone());
        }
    }
    Ok(drivers)
}

/// `redisHost` and its fellows: the replica is what is read from, the master what is written to.
fn legacy_drivers(loaded: &Loaded, warnings: &mut Vec<String>) -> Vec<Driver> {
    let file = &loaded.file;
    let old = [
        ("redisHost", file.redis_host.is_some()),
        ("redisPort", file.redis_port.is_some()),
        ("redisPassword", file.redis_password.is_some()),
        ("redisDatabase", file.redis_database.is_some()),
        ("redisMasterHost", file.redis_master_host.is_some()),
        ("redisMasterPort", file.redis_master_port.is_some()),
        ("redisMasterPassword", file.redis_master_password.is_some()),
        ("redisMasterDatabase", file.redis_master_database.is_some()),
    ];
    for (key, _) in old.iter().filter(|(_, is_set)| *is_set) {
        warnings.push(format!("{} is old, write driver", loaded.place(key)));
    }
    let driver = |host: &Option<String>, port: Option<u16>, password: &Option<String>, db| {
        let default = Driver::default();
        let host = host.clone().unwrap_or_else(|| shared::driver::DEFAULT_HOST.to_owned());
        let port = port.unwrap_or(shared::driver::DEFAULT_PORT);
        Driver {
            address: Address::Tcp(HostPort { host, port }),
            password: password.clone().map(Secret::new),
            database: Option::unwrap_or(db, 0),
            ..default
        }
    };
    let mut drivers = Vec::new();
    if old.iter().any(|(key, is_set)| *is_set && !key.contains("Master")) {
        drivers.push(driver(
            &file.redis_host,
            file.redis_port,
            &file.redis_password,
            file.redis_database,
        ));
    }
    if file.redis_master_host.is_some() || file.redis_master_port.is_some() {
        drivers.push(driver(
            &file.redis_master_host,
            file.redis_master_port,
            &file.redis_master_password,
            file.redis_master_database,
        ));
    }
    drivers
}
