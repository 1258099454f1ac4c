//! A supervised connection to the primary for whoever brings commands of its own.
//!
//! The router needs few verbs and finds them on [`Store`](super::Store). marathon-sync writes lists
//! and has scripts of its own: it says them with [`Command`] and reads [`Reply`], so that no type of
//! the `redis` crate leaves `store`.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};
use tokio_util::sync::CancellationToken;

use super::link::{Link, Role};
use super::{Outage, StoreConfig, StoreError};

/// One command and its arguments.
#[derive(Clone, Debug)]
pub struct Command {
    inner: redis::Cmd,
    bytes: usize,
}

impl Command {
    /// A command without arguments yet.
    pub fn new(name: &str) -> Self {
        Self { inner: redis::cmd(name), bytes: name.len() }
    }

    /// An `EVAL` of `script` over `keys`; its other arguments follow with [`arg`](Self::arg).
    pub fn script(script: &str, keys: &[String]) -> Self {
        let command = Self::new("EVAL").arg(script).number(keys.len());
        keys.iter().fold(command, Self::arg)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        let argument = argument.as_ref();
        self.bytes = self.bytes.saturating_add(argument.len());
        self.inner.arg(argument);
        self
    }

    /// Adds a number as an argument.
    #[must_use]
    pub fn number(mut self, argument: usize) -> Self {
        self.inner.arg(argument);
        self
    }

    /// Length of the name and of the arguments together, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What Redis said to one command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A number.
    Integer(i64),
    /// Several answers, such as the rows of a list.
    List(Vec<Self>),
    /// Nothing there.
    Nil,
    /// A kind of answer that no command of ours gives.
    Other,
    /// A string, also a status such as `OK`.
    Text(Vec<u8>),
}

impl Reply {
    /// The string.
    pub fn into_text(self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Integer(_) | Self::List(_) | Self::Nil | Self::Other => None,
        }
    }

    /// The strings of a list, `None` for each item that is none; a missing key is an empty list.
    pub fn into_texts(self) -> Option<Vec<Option<Vec<u8>>>> {
        match self {
            Self::List(items) => Some(items.into_iter().map(Self::into_text).collect()),
            Self::Nil => Some(Vec::new()),
            Self::Integer(_) | Self::Other | Self::Text(_) => None,
        }
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Integer(number),
            Value::BulkString(text) => Self::Text(text),
            Value::SimpleString(text) => Self::Text(text.into_bytes()),
            Value::Okay => Self::Text(b"OK".to_vec()),
            Value::Array(items) | Value::Set(items) => {
                Self::List(items.into_iter().map(Self::from).collect())
            }
            _ => Self::Other,
        }
    }
}

/// A connection to the last driver (Hipache's primary) that heals itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    link: Link,
    prefix: Arc<str>,
}

impl Client {
    /// Starts to connect, in a task of the current runtime that ends with `shutdown`. Does not wait
    /// for Redis.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime, or when `config.drivers` is empty.
    pub fn start(config: &StoreConfig, shutdown: &CancellationToken) -> Self {
        let driver = config.drivers.last().expect("the configuration has at least one driver");
        let link = Link::start(driver, config, Role::Keep, None, shutdown);
        Self { link, prefix: driver.prefix.as_str().into() }
    }

    /// What the driver puts before every key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether there is a connection now.
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// What keeps Redis from being used, while there is no connection.
    pub fn outage(&self) -> Outage {
        self.link.outage()
    }

    /// Waits for a connection, at most `limit`.
    pub async fn wait_until_up(&self, limit: Duration) -> bool {
        self.link.wait_until_up(limit).await
    }

    /// Runs one command, for at most the response timeout.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away, slow or refuses.
    pub async fn run(&self, command: &Command) -> Result<Reply, StoreError> {
        self.link.run(&command.inner).await.map(Reply::from)
    }

    /// Sends the commands together and returns an answer for each, in their order. The response
    /// timeout is for all of them, so a caller bounds their number.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away or slow; what was sent may have been carried out or not.
    pub async fn pipeline(
        &self,
        commands: &[Command],
    ) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for command in commands {
            pipe.add_command(command.inner.clone());
        }
        let answers = self.link.query(&pipe).await?;
        Ok(answers.into_iter().map(reply).collect())
    }
}

fn reply(answer: RedisResult<Value>) -> Result<Reply, StoreError> {
    answer.map(Reply::from).map_err(StoreError::from)
}

impl StoreError {
    /// Whether the key is of another type than the command is for.
    pub fn is_wrong_type(&self) -> bool {
        self.matches(|error| {
            error.code() == Some("WRONGTYPE")
                || error.detail().is_some_and(|detail| detail.contains("WRONGTYPE"))
        })
    }

    /// Whether the server does not know `EVAL`, or does not allow it to this user.
    pub fn is_scripts_refused(&self) -> bool {
        self.matches(|error| {
            let says = |text: &str| {
                error.detail().is_some_and(|detail| detail.to_ascii_lowercase().contains(text))
            };
            says("eval") && (error.code() == Some("NOPERM") || says("unknown command"))
        })
    }

    fn matches(&self, test: impl Fn(&RedisError) -> bool) -> bool {
        matches!(self, Self::Command(error) if test(error))
    }

    /// This error with what Redis said, for a message to people.
    pub fn detail(&self) -> String {
        match self {
            Self::Full | Self::ReadOnly | Self::Unavailable => self.to_string(),
            Self::Command(error) => error.to_string(),
        }
    }
}
