//! The scripts that change dead sets. Each decides and writes in one step, so that a list edited
//! at the same moment cannot come between.
//!
//! A server above its `maxmemory` with nothing to evict refuses `SADD` in a script that has not
//! written yet, so each script begins with a write that needs no memory.

use redis::{Cmd, Pipeline, RedisError};

use super::{Mark, Repair};
use crate::keys;

/// KEYS: dead set, list. ARGV: row, position, seconds to live (0 leaves the set alone), channel,
/// host, URL, number of backends, whether the list was read from this server. Returns the position of
/// the row now, -1 when it is gone, or alone by now: the only backend is never marked. A list that is not there although it was read from another server
/// is still under way to this one, or never comes: then what was read counts. `SMEMBERS` fails for a
/// key that is no set before anything is written to it, and the first `EXPIRE` needs no memory.
const MARK: &str = r"
local position = tonumber(ARGV[2])
local count = redis.call('LLEN', KEYS[2]) - 1
if count < 0 then
  if ARGV[8] == '1' then
    return -1
  end
  count = ARGV[7]
elseif redis.call('LINDEX', KEYS[2], position + 1) ~= ARGV[1] then
  position = nil
  for index, row in ipairs(redis.call('LRANGE', KEYS[2], 1, -1)) do
    if row == ARGV[1] then
      position = index - 1
      break
    end
  end
  if not position then
    return -1
  end
end
if count == 1 then
  return -1
end
if tonumber(ARGV[3]) > 0 then
  redis.call('SMEMBERS', KEYS[1])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  redis.call('SADD', KEYS[1], position)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
redis.call('PUBLISH', ARGV[4], ARGV[5] .. ';' .. ARGV[6] .. ';' .. position .. ';' .. count)
return position
";

/// KEYS: dead set, list. ARGV: number of old positions, the old positions, number of new ones, the
/// new ones, the rows of the list. Returns 1 when the set was rewritten.
const REPAIR: &str = r"
local next = 1
local function take(count)
  local taken = {}
  for index = 1, count do
    taken[index] = ARGV[next]
    next = next + 1
  end
  return taken
end
local old = take(tonumber(take(1)[1]))
local new = take(tonumber(take(1)[1]))
local rows = take(#ARGV - next + 1)
local function differs(left, right)
  if #left ~= #right then
    return true
  end
  for index, item in ipairs(left) do
    if item ~= right[index] then
      return true
    end
  end
  return false
end
local members = redis.call('SMEMBERS', KEYS[1])
table.sort(members)
table.sort(old)
if differs(members, old) or redis.call('LLEN', KEYS[2]) > #rows + 1 or differs(redis.call('LRANGE', KEYS[2], 1, -1), rows) then
  return 0
end
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
for _, position in ipairs(new) do
  redis.call('SADD', KEYS[1], position)
end
if left > 0 and #new > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return 1
";

fn script(text: &str, prefix: &str, host: &str, frontend: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(2);
    command.arg(keys::dead(prefix, host)).arg(keys::frontend(prefix, frontend));
    command
}

/// The command that marks a backend dead.
pub(super) fn mark(prefix: &str, mark: &Mark, checker_is_alive: bool, is_one_server: bool) -> Cmd {
    let seconds = if checker_is_alive { 0 } else { mark.ttl_in_redis().as_secs() };
    let mut command = script(MARK, prefix, &mark.host, &mark.frontend);
    command.arg(&mark.row).arg(mark.position).arg(seconds);
    command.arg(keys::DEAD_CHANNEL).arg(&mark.host).arg(&mark.url).arg(mark.count);
    command.arg(u8::from(is_one_server));
    command
}

/// The same without a script, exactly as Hipache writes it, for servers that allow none.
pub(super) fn plain_mark(prefix: &str, mark: &Mark, checker_is_alive: bool) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic().ignore_errors();
    if !checker_is_alive {
        let key = keys::dead(prefix, &mark.host);
        pipe.cmd("SADD").arg(&key).arg(mark.position);
        pipe.cmd("EXPIRE").arg(&key).arg(mark.ttl_in_redis().as_secs());
    }
    let message = keys::dead_message(&mark.host, &mark.url, mark.position, mark.count);
    pipe.cmd("PUBLISH").arg(keys::DEAD_CHANNEL).arg(message);
    pipe
}

/// The command that rewrites a dead set.
pub(super) fn repair(prefix: &str, repair: &Repair) -> Cmd {
    let mut command = script(REPAIR, prefix, &repair.host, &repair.frontend);
    command.arg(repair.from.len()).arg(&repair.from);
    command.arg(repair.to.len()).arg(&repair.to).arg(&repair.rows);
    command
}

/// Whether the server does not know or not allow scripts.
pub(super) fn are_refused(error: &RedisError) -> bool {
    // What a user may not do inside a script has no code of its own before Redis 7.2.
    let phrases = [
        "unknown command",
        // Renamed: asked for by a script.
        "Unknown Redis command",
        "executing the script can't run",
        "ACL failure in script",
    ];
    error.code() == Some("NOPERM")
        || error.detail().is_some_and(|detail| phrases.iter().any(|phrase| detail.contains(phrase)))
}
