"""What Redis runs: `proxy/limits/windows.py` once more, over one request's whole chain and at once (ADR 47).

Each key stands in KEYS, as Redis Cluster asks, and all bear one tree's tag, so that they lie together.

A counter is one packed value: the newest sub-bucket, the latest time, since when its log is whole (-1: there is none),
what each of 21 sub-buckets holds, and what of it is reserved. The log beside it is a list of admissions in
microseconds. Both end by themselves once they count nothing.
"""

import hashlib
from typing import NamedTuple

from proxy.limits.rolling import LOGGED, RESERVED_WAIT_US, SUB_BUCKETS


class Script(NamedTuple):
    """One script, and the name by which the server knows it."""

    text: str
    sha1: str


def _script(body: str) -> Script:
    text = _COMMON + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_COMMON = f"""
local SUB, RING, LOGGED, RESERVED_WAIT = {SUB_BUCKETS}, {SUB_BUCKETS + 1}, {LOGGED}, {RESERVED_WAIT_US}
local WHOLE = '%.0f'

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function read(key, width, now)
  local kept = redis.call('GET', key)
  if kept then return cmsgpack.unpack(kept) end
  local counter = {{math.floor(now / width), now, now - SUB * width, {{}}, {{}}}}
  for place = 1, RING do counter[4][place], counter[5][place] = 0, 0 end
  return counter
end

local function lasts(width) return string.format(WHOLE, RING * width / 1000 + 1000) end

local function write(key, counter, width)
  redis.call('SET', key, cmsgpack.pack(counter), 'PX', lasts(width))
end

-- Make the sub-bucket of `now` the newest, and drop what has left the window.
local function roll(counter, width, now)
  counter[2] = now
  local bucket = math.floor(now / width)
  for left = math.max(counter[1] + 1, bucket - SUB), bucket do
    local place = left % RING + 1
    counter[4][place], counter[5][place] = 0, 0
  end
  if bucket > counter[1] then counter[1] = bucket end
end

local function sum(places)
  local total = 0
  for place = 1, RING do total = total + places[place] end
  return total
end
"""

RESERVE = _script("""
local limits, given = {}, clock()
local now = given
for at = 1, #KEYS / 2 do
  local word = 2 + (at - 1) * 4
  local limit = {
    key = KEYS[2 * at - 1], log = KEYS[2 * at], type = ARGV[word], width = tonumber(ARGV[word + 1]),
    threshold = tonumber(ARGV[word + 2]), amount = tonumber(ARGV[word + 3]),
  }
  limit.counter = read(limit.key, limit.width, now)
  now = math.max(now, limit.counter[2])
  limits[at] = limit
end

-- Return how many the log holds of the last unit; nil where the limit goes by sub-buckets.
local function logged(limit)
  if limit.type ~= 'REQUEST' then return nil end
  local counter = limit.counter
  if limit.threshold > LOGGED then
    if counter[3] ~= -1 then
      counter[3], limit.changed = -1, true
      redis.call('DEL', limit.log)
    end
    return nil
  end
  if counter[3] == -1 then
    counter[3], limit.changed = now, true
  end
  local began = now - SUB * limit.width
  local first = redis.call('LINDEX', limit.log, 0)
  while first and tonumber(first) <= began do
    redis.call('LPOP', limit.log)
    first = redis.call('LINDEX', limit.log, 0)
  end
  return counter[3] <= began and redis.call('LLEN', limit.log) or nil
end

local function below(limit, places, left)
  local bucket = limit.counter[1] - RING
  while left >= limit.threshold do
    bucket = bucket + 1
    local place = bucket % RING + 1
    left = left - places[place]
  end
  return (bucket + RING) * limit.width
end

local function admits(limit)
  if limit.threshold == 0 then return now + SUB * limit.width end
  if limit.logged then
    if limit.logged < limit.threshold then return 0 end
    return redis.call('LINDEX', limit.log, -limit.threshold) + SUB * limit.width
  end
  local all, held = limit.counter[4], limit.counter[5]
  local whole = below(limit, all, limit.counted)
  if sum(held) == 0 then return whole end
  local settled = {}
  for place = 1, RING do settled[place] = all[place] - held[place] end
  return math.min(whole, math.max(below(limit, settled, sum(settled)), now + RESERVED_WAIT))
end

local function empty(limit)
  if limit.logged then
    local last = redis.call('LINDEX', limit.log, -1)
    return last and last + SUB * limit.width or 0
  end
  if limit.counted == 0 then return 0 end
  local bucket = limit.counter[1]
  while limit.counter[4][bucket % RING + 1] == 0 do bucket = bucket - 1 end
  return (bucket + RING) * limit.width
end

local admitted = 1
for _, limit in ipairs(limits) do
  roll(limit.counter, limit.width, now)
  limit.logged = logged(limit)
  limit.counted = limit.logged or sum(limit.counter[4])
  if limit.counted >= limit.threshold then admitted = 0 end
end

local reply = {admitted, given, now}
for _, limit in ipairs(limits) do
  if admitted == 1 then
    local place = limit.counter[1] % RING + 1
    limit.counter[4][place] = limit.counter[4][place] + limit.amount
    if limit.type ~= 'REQUEST' then
      limit.counter[5][place] = limit.counter[5][place] + limit.amount
    elseif limit.counter[3] ~= -1 then
      redis.call('RPUSH', limit.log, string.format(WHOLE, now))
      redis.call('PEXPIRE', limit.log, lasts(limit.width))
    end
    limit.counted = limit.counted + limit.amount
    if limit.logged then limit.logged = limit.counted end
  end
  if admitted == 1 or limit.changed then write(limit.key, limit.counter, limit.width) end
  local refuses = admitted == 0 and limit.counted >= limit.threshold
  reply[#reply + 1] = limit.counted
  reply[#reply + 1] = refuses and admits(limit) or 0
  reply[#reply + 1] = empty(limit)
end
return reply
""")
"""KEYS: each limit's counter and log. ARGV: the time in microseconds, empty for the server's own; of each limit its
type, the width of a sub-bucket in microseconds, its threshold, and what this request takes.

Returns 1 or 0 (nothing was taken), the time as given and as it counts, and of each limit what is counted now, from when
it admits (0 where it does) and from when it is empty, in microseconds.
"""

TAKE = _script("""
local now, lease, member = clock(), tonumber(ARGV[2]), ARGV[3]
for at, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format(WHOLE, now))
  if redis.call('ZCARD', key) >= tonumber(ARGV[3 + at]) then return at end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format(WHOLE, now + lease), member)
  redis.call('PEXPIRE', key, string.format(WHOLE, lease / 1000 + 1000))
end
return 0
""")
"""KEYS: the places of each limit of requests in flight, by when their leases end. ARGV: the time as above, how long a
lease lasts in microseconds, the request's name, and each limit's threshold.

Returns 0, or the number of the first limit that is full: then nothing was taken.
"""

HOLD = _script("""
local now, lease = clock(), tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format(WHOLE, now + lease), ARGV[3])
  redis.call('PEXPIRE', key, string.format(WHOLE, lease / 1000 + 1000))
end
return 0
""")
"""The same without thresholds: a request that is in flight holds its places, whether they were lost or not."""

LEAVE = _script("""
for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[2]) end
return 0
""")
"""KEYS as above. ARGV: the time as above, and the request's name: it has ended."""

SETTLE = _script("""
local now = clock()
for at, key in ipairs(KEYS) do
  local word = 2 + (at - 1) * 4
  local width, admitted = tonumber(ARGV[word]), tonumber(ARGV[word + 1])
  local estimate, used = tonumber(ARGV[word + 2]), tonumber(ARGV[word + 3])
  local is_known = redis.call('EXISTS', key) == 1
  local counter = read(key, width, now)
  roll(counter, width, math.max(now, counter[2]))
  local bucket = math.floor(admitted / width)
  if bucket > counter[1] - RING and not is_known then
    -- The server has lost it: nothing can be refunded, and what was used counts from now.
    local place = counter[1] % RING + 1
    counter[4][place] = used
  elseif bucket > counter[1] - RING then
    local place = bucket % RING + 1
    counter[4][place] = counter[4][place] + used - estimate
    counter[5][place] = counter[5][place] - estimate
  elseif used > estimate then
    local place = counter[1] % RING + 1
    counter[4][place] = counter[4][place] + used - estimate
  end
  write(key, counter, width)
end
""")
"""KEYS: the counters of a request's token limits. ARGV: the time as above; of each the width of a sub-bucket, when the
request was admitted, both in microseconds, what was reserved and what was used.
"""
