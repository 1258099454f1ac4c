//! The scripts that write. Each checks and writes in one step, so that nothing comes between: not a
//! reader, not an edit by hand, not another writer.
//!
//! A server above its `maxmemory` with nothing to evict refuses a command flagged `denyoom` in a
//! script (`SET`, `HSET`, `RPUSH`, `SADD`), but only while the script has not written yet: it cannot
//! stop a script halfway. That is so in every version since 2.6 for scripts without a `#!lua` line
//! (with one, Redis 7 decides at the start, and older servers cannot read it). So each script writes
//! first with a command that needs no memory, which may well change nothing.

use std::time::Duration;

use shared::keys;
use shared::store::{Command, Reply};

use super::change::{Action, Change};

/// How long an instance that nobody runs counts as in use: long enough for an upgrade or a night's
/// incident, after which its backends leave the lists that it shares.
const ACTIVE_FOR: Duration = Duration::from_secs(60 * 60);

/// KEYS: lease, list, dead set, notes, notes of other instances. ARGV: lease token, host, note or '', what
/// becomes of the list ('keep' or 'delete'), number of items seen, the items, number of positions kept,
/// the positions, number of other instances, their notes about the host as they were seen or '', items to
/// append. Of two instances that both give up a row, the second sees the first one's new note here, and
/// compares again: so one of them removes the row.
///
/// When backends go, the whole new list is appended and the old one trimmed off. So the key exists
/// throughout and keeps an expiry that somebody gave it, and a server that refuses one of the commands
/// in the middle leaves too much, never too little. Positions in the dead set follow their backends;
/// those of backends that are gone go, and all when one backend is left, which is never marked; here,
/// too, adding comes first, so that the set keeps its expiry. The note stands before all: if the notes
/// are of another type, nothing has been written yet. Its first command removes a field that no host
/// has, so that a full server takes the rest.
const WRITE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 'lost'
end
local next = 5
local function take(count)
  local taken = {}
  for index = 1, count do
    taken[index] = ARGV[next]
    next = next + 1
  end
  return taken
end
local function counted()
  return take(tonumber(take(1)[1]))
end
local seen, kept, records = counted(), counted(), counted()
local added = take(#ARGV - next + 1)

local list = redis.call('LRANGE', KEYS[2], 0, -1)
if #list ~= #seen then
  return 'conflict'
end
for index, item in ipairs(seen) do
  if list[index] ~= item then
    return 'conflict'
  end
end

for index, record in ipairs(records) do
  if (redis.call('HGET', KEYS[4 + index], ARGV[2]) or '') ~= record then
    return 'conflict'
  end
end

redis.call('HDEL', KEYS[4], '')
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[4], ARGV[2])
else
  redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
end

local removes = #kept < #seen - 1
local place, items = {}, {}
if removes then
  items[1] = seen[1]
end
for new, old in ipairs(kept) do
  place[tonumber(old)] = tostring(new - 1)
  if removes then
    items[new + 1] = seen[tonumber(old) + 2]
  end
end
for _, item in ipairs(added) do
  items[#items + 1] = item
end
if ARGV[4] == 'delete' then
  redis.call('DEL', KEYS[2])
else
  for first = 1, #items, 100 do
    redis.call('RPUSH', KEYS[2], unpack(items, first, math.min(first + 99, #items)))
  end
  if removes then
    redis.call('LTRIM', KEYS[2], #seen, -1)
  end
end
if ARGV[4] ~= 'delete' and not removes and #added == 0 then
  return 'written'
end

if #kept + #added < 2 then
  place = {}
end
local dead = redis.pcall('SMEMBERS', KEYS[3])
local stays, goes = {}, {}
for _, member in ipairs(dead) do
  local old = string.match(member, '^%s*(%d+)%s*$')
  if old then
    local new = place[tonumber(old)]
    if new then
      stays[new] = true
    end
    goes[member] = true
  end
end
for position in pairs(stays) do
  if not goes[position] then
    redis.call('SADD', KEYS[3], position)
  end
end
for member in pairs(goes) do
  if not stays[member] then
    redis.call('SREM', KEYS[3], member)
  end
end
return 'written'
";

/// KEYS: lease, names of all instances, sign that this one is in use. ARGV: token, milliseconds, instance,
/// milliseconds of that sign, prefix. Returns 'renewed' or 'taken', with ' full' after it when the
/// server has no memory left, or the token of the holder, in a list if its lease had no end: none of
/// ours is like that, and all would wait for ever, so it gets one. That a token takes what it already
/// holds makes an answer that got lost harmless.
///
/// `SET` is what a full server refuses, so it is tried first, to know. `PEXPIRE` needs no memory: it
/// renews a lease that is there, and lets `SET` through where there is none.
///
/// Who has the lease is in use, and enters its name. A new leader takes the names off that are not.
const TAKE: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  if redis.call('PTTL', KEYS[1]) == -1 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {holder}
  end
  return holder
end
local answer = holder and 'renewed' or 'taken'
local function enter()
  redis.call('SET', KEYS[3], '1', 'PX', ARGV[4])
  redis.call('SADD', KEYS[2], ARGV[3])
  if holder then
    return
  end
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    if redis.call('EXISTS', ARGV[5] .. 'marathon-sync:' .. name .. ':active') == 0 then
      redis.call('SREM', KEYS[2], name)
    end
  end
end
local reply = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if reply.err then
  if not string.find(reply.err, 'OOM', 1, true) then
    return reply
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if not holder then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  end
  enter()
  return answer .. ' full'
end
enter()
return answer
";

/// KEYS: lease. ARGV: token.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
";

/// The command that carries out a change, if `token` still holds the lease and the list stands as
/// it was seen.
pub(super) fn write(prefix: &str, instance: &str, token: &str, change: &Change) -> Command {
    let mut keys = vec![
        keys::agent_lease(prefix, instance),
        keys::frontend(prefix, &change.host),
        keys::dead(prefix, &change.host),
        keys::agent_owned(prefix, instance),
    ];
    keys.extend(change.records.iter().map(|(other, _)| keys::agent_owned(prefix, other)));
    let note = change.owned.as_ref().map(super::owned::Owned::to_json).unwrap_or_default();
    let fate = if change.action == Action::Delete { "delete" } else { "keep" };
    let mut command =
        Command::script(WRITE, &keys).arg(token).arg(&change.host).arg(note).arg(fate);
    command = command.number(change.seen.len());
    command = change.seen.iter().fold(command, Command::arg).number(change.kept.len());
    command = change.kept.iter().fold(command, |command, position| command.number(*position));
    command = command.number(change.records.len());
    command = change.records.iter().fold(command, |command, (_, record)| command.arg(record));
    if change.action == Action::Create {
        command = command.arg(&change.identifier);
    }
    change.added.iter().fold(command, Command::arg)
}

/// The command that takes or renews the lease.
pub(super) fn take(prefix: &str, instance: &str, token: &str, millis: u128) -> Command {
    let keys = [
        keys::agent_lease(prefix, instance),
        keys::agent_instances(prefix),
        keys::agent_active(prefix, instance),
    ];
    Command::script(TAKE, &keys)
        .arg(token)
        .arg(millis.to_string())
        .arg(instance)
        .arg(ACTIVE_FOR.as_millis().to_string())
        .arg(prefix)
}

/// The command that gives the lease back.
pub(super) fn release(prefix: &str, instance: &str, token: &str) -> Command {
    Command::script(RELEASE, &[keys::agent_lease(prefix, instance)]).arg(token)
}

/// What [`write()`] says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Said {
    /// The list is not what was seen.
    Conflict,
    /// The token does not hold the lease.
    Lost,
    /// Done.
    Written,
}

impl Said {
    pub(super) fn read(reply: Reply) -> Option<Self> {
        match reply.into_text()?.as_slice() {
            b"conflict" => Some(Self::Conflict),
            b"lost" => Some(Self::Lost),
            b"written" => Some(Self::Written),
            _ => None,
        }
    }
}
