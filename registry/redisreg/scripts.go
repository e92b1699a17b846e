package redisreg

import "github.com/redis/go-redis/v9"

// Each script touches the keys it is given and no others, and these have one
// hash tag. Times are milliseconds of the clock of the Redis that holds the
// key. Nothing here needs more than Redis 6.2.

// lua begins every script: the clock, keys that live at least so long, and
// epochs, which are decimal text because a Lua number has 53 bits.
const lua = `
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function keep(key, ttl)
  if redis.call('PTTL', key) < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end
local function newer(a, b)
  return #a > #b or (#a == #b and a > b)
end
`

var (
	// beatIndex: nodes | id ttl grace. Notes when the lease ends; 1 if there
	// was a valid one.
	beatIndex = redis.NewScript(lua + `
local now = clock()
local was = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
keep(KEYS[1], ARGV[2] + ARGV[3])
return (was and tonumber(was) > now) and 1 or 0`)

	// beatNode: node conns | data ttl. Stores the node behind the time, keeps
	// its connections as long; 1 if it stood there before.
	beatNode = redis.NewScript(lua + `
local was = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], string.format('%d ', clock()) .. ARGV[1], 'PX', ARGV[2])
if was == 0 then redis.call('DEL', KEYS[2]) else redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return was`)

	// live: nodes or follow. The ids whose end is still to come.
	live = redis.NewScript(lua + `
return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%d', clock()), '+inf')`)

	// ended: nodes. The ids whose end has come, each with its end.
	ended = redis.NewScript(lua + `
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', clock(), 'WITHSCORES')`)

	// bury: nodes | id end id end … Removes the ids whose lease has not been
	// renewed since.
	bury = redis.NewScript(lua + `
for i = 1, #ARGV, 2 do
  local s = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if s and tonumber(s) == tonumber(ARGV[i + 1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1`)

	// lead: cleaner | id ttl. 1 if id is the cleaner now.
	lead = redis.NewScript(lua + `
local who = redis.call('GET', KEYS[1])
if who and who ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

	// resign: cleaner | id.
	resign = redis.NewScript(lua + `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`)

	// put: record | epoch owner data ttl. 0 if a newer epoch stands there.
	put = redis.NewScript(lua + `
local e = redis.call('HGET', KEYS[1], 'epoch')
if e and newer(e, ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2], 'data', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`)

	// claim: record | old epoch owner data ttl. 0 if what stands there is
	// neither of the old epoch nor the claimant's already.
	claim = redis.NewScript(lua + `
local h = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
local mine = h[1] == ARGV[2] and h[2] == ARGV[3]
if not mine and (h[1] ~= ARGV[1] or not newer(ARGV[2], ARGV[1])) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'owner', ARGV[3], 'data', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1`)

	// touch: record follow | ttl node node … Puts off the end of the record
	// and of the interest that these nodes have.
	touch = redis.NewScript(lua + `
keep(KEYS[1], ARGV[1])
local now = clock()
local until_ = now + ARGV[1]
for i = 2, #ARGV do
  local s = redis.call('ZSCORE', KEYS[2], ARGV[i])
  s = s and tonumber(s)
  if s and s > now and s < until_ then redis.call('ZADD', KEYS[2], until_, ARGV[i]) end
end
keep(KEYS[2], ARGV[1])
return 1`)

	// follow: follow | node ttl.
	follow = redis.NewScript(lua + `
local now = clock()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
keep(KEYS[1], ARGV[2])
return 1`)

	// elect: key | stands bid ttl. Puts the bid if the key is free or still
	// holds what is taken for dead ('' for none); answers what stands there.
	elect = redis.NewScript(lua + `
local now = redis.call('GET', KEYS[1])
if now and now ~= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]`)

	// extend: key | stream ttl. 0 if the key does not hold the stream.
	extend = redis.NewScript(lua + `
local now = redis.call('GET', KEYS[1])
if not now or string.sub(now, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
keep(KEYS[1], ARGV[2])
return 1`)

	// release: key | stream.
	release = redis.NewScript(lua + `
local now = redis.call('GET', KEYS[1])
if now and string.sub(now, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`)

	// addPrint: print | stream ttl most. A list of "end stream", newest first.
	addPrint = redis.NewScript(lua + `
local now = clock()
for _, v in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local till, stream = string.match(v, '^(%d+) (.*)$')
  if not till or tonumber(till) <= now or stream == ARGV[1] then redis.call('LREM', KEYS[1], 0, v) end
end
redis.call('LPUSH', KEYS[1], string.format('%d ', now + ARGV[2]) .. ARGV[1])
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
keep(KEYS[1], ARGV[2])
return 1`)

	// byPrint: print. The streams whose end is still to come.
	byPrint = redis.NewScript(lua + `
local now, out = clock(), {}
for _, v in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local till, stream = string.match(v, '^(%d+) (.*)$')
  if not till then return redis.error_reply('ERR not a fingerprint: ' .. v) end
  if tonumber(till) > now then out[#out + 1] = stream end
end
return out`)

	// putConns: node conns | id data id data … 0, and nothing kept, if the
	// node has no lease.
	putConns = redis.NewScript(lua + `
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return 0 end
for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[2], left)
return 1`)

	// take: note. Gets and deletes it.
	take = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if v then redis.call('DEL', KEYS[1]) end
return v`)

	// gather: gathered | value ttl most. A list, newest first.
	gather = redis.NewScript(lua + `
redis.call('LREM', KEYS[1], 0, ARGV[1])
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
keep(KEYS[1], ARGV[2])
return 1`)

	// putDue: due | at item item … Kept until a week after the last is due.
	putDue = redis.NewScript(lua + `
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i]) end
keep(KEYS[1], string.format('%d', math.max(0, ARGV[1] - clock()) + 7 * 24 * 3600 * 1000))
return 1`)

	// takeDue: due | now back most. The items that are due, which wait until
	// back from now on.
	takeDue = redis.NewScript(lua + `
local items = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
if #items == 0 then return items end
for i = 1, #items do redis.call('ZADD', KEYS[1], ARGV[2], items[i]) end
keep(KEYS[1], string.format('%d', math.max(0, ARGV[2] - clock()) + 7 * 24 * 3600 * 1000))
return items`)
)
