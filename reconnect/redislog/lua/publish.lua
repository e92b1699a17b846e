-- Numbers posts and adds them to a topic's log; all or none.
-- KEYS: the numbering, the log; if there is a Once, the ids of late and those
-- from before; who follows, if anybody keeps that. ARGV: Limits.Length or 0; TTL
-- of the log and of the numbering in ms or 0; the longest Once in ms or 0; the
-- Seq that the caller knows of or 0; then for each entry the number of its frames
-- and its value, and if there is a Once, for each frame its size in the value,
-- its Once or 0, and its id.
-- Returns the epoch, the last Seq, the time, who follows, and for each post
-- that was there already which it is (from 1) and its position.
local followers = {}
local epoch, last, time, now, fields, anew = number(KEYS[1], KEYS[2], tonumber(ARGV[5]))
if not epoch then
  return redis.error_reply('BROKEN numbering')
end
local once = tonumber(ARGV[4])
local follow = KEYS[once > 0 and 5 or 3]
if follow then
  followers = redis.call('ZRANGEBYSCORE', follow, '(' .. integer(now), '+inf')
end
local before, timeBefore = last, time
if time < now then
  time = now
end
-- As text, for to write numbers is a good part of the work.
local epochText, timeText, lastText = integer(epoch), integer(time)

-- Adds an entry of n frames, n as text; what is wrong is in err of the answer.
local function add(n, value)
  last = last + n
  lastText = integer(last)
  local id = epochText .. '-' .. lastText
  local field = '1e0+' .. n .. '@' .. timeText
  local done = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', id, field, value)
  if not done then -- there is no log, or none any more
    if not anew and before > epoch * 1000 + (tonumber(redis.call('HGET', KEYS[1], 'h')) or 0) then
      redis.call('HSET', KEYS[1], 'b', integer(before), 'bt', integer(timeBefore))
    end
    done = redis.pcall('XADD', KEYS[2], id, field, value)
  end
  if type(done) == 'table' and done.err and string.find(done.err, 'equal or smaller', 1, true) then
    return redis.error_reply('BROKEN numbering, the log is further')
  end
  return done
end

local width = once
if once > 0 then
  -- Ids are kept in two generations, each as long as the longest Once. So two
  -- keys are enough, and what is old goes all at once.
  local gen = redis.call('HMGET', KEYS[3], 's', 'w')
  local start = tonumber(gen[1])
  width = math.max(once, tonumber(gen[2]) or 0)
  if start and (time - start >= width) then
    redis.call('UNLINK', KEYS[4])
    redis.call('RENAME', KEYS[3], KEYS[4])
    start = nil
  end
  if not start then
    redis.call('HSET', KEYS[3], 's', timeText, 'w', integer(width))
  elseif gen[2] ~= integer(width) then
    redis.call('HSET', KEYS[3], 'w', integer(width))
  end
end

local dups = {}
local here = {} -- ids of this call
local post = 0
local arg = 6
while arg <= #ARGV do
  local n, value = ARGV[arg], ARGV[arg + 1]
  arg = arg + 2
  local new -- ids with positions
  if once > 0 then
    local ids = {}
    n = tonumber(n)
    new = {}
    for i = 1, n do
      ids[i] = 'i' .. ARGV[arg + 3 * i - 1]
    end
    local late = redis.call('HMGET', KEYS[3], unpack(ids))
    local old = redis.call('HMGET', KEYS[4], unpack(ids))
    local kept = {} -- ranges of the value
    local at, from, left = 1, 1, 0
    for i = 1, n do
      local size, span = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
      arg = arg + 3
      post = post + 1
      local was = span > 0 and (here[ids[i]] or late[i] or old[i])
      local pos, till -- where it stands, and when it is forgotten
      if was then
        pos, till = string.match(was, '^(%d+%-%d+) (%d+)$')
      end
      if pos and time < tonumber(till) then
        dups[#dups + 1] = post
        dups[#dups + 1] = pos
        kept[#kept + 1] = string.sub(value, from, at - 1)
        from = at + size
      else
        left = left + 1
        if span > 0 then
          here[ids[i]] = epochText .. '-' .. integer(last + left) .. ' ' .. integer(time + span)
          new[#new + 1] = ids[i]
          new[#new + 1] = here[ids[i]]
        end
      end
      at = at + size
    end
    if left < n then
      kept[#kept + 1] = string.sub(value, from)
      n, value = left, table.concat(kept)
    end
  end
  if n ~= 0 then
    local done = add(n, value)
    if type(done) == 'table' and done.err then
      return done
    end
  end
  if new and #new > 0 then
    redis.call('HSET', KEYS[3], unpack(new))
  end
end

if once > 0 then
  redis.call('PEXPIRE', KEYS[3], integer(width))
end
if last > before then
  fields[#fields + 1] = 's'
  fields[#fields + 1] = lastText
  fields[#fields + 1] = 't'
  fields[#fields + 1] = timeText
  local length, origin = tonumber(ARGV[1]), epoch * 1000
  if length > 0 and last - origin > length then
    local step = math.max(1, math.floor(length / 8))
    if math.floor((before - origin) / step) ~= math.floor((last - origin) / step) then
      redis.call('XTRIM', KEYS[2], 'MINID', '~', epochText .. '-' .. integer(last - length + 1))
    end
  end
  expire(KEYS[2], ARGV[2])
end
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
end
expire(KEYS[1], ARGV[3])
return {epoch, last, time, followers, dups}
