-- Begins the scripts that number topics. The numbering is a hash: e and s, the
-- epoch and the last Seq that was given out; t, when; r, the Redis process that
-- gave it out, and v, when that was looked at; h, 1 if it begins with a hole,
-- that is, at 2, since frames are known to be lost; p, the Seqs after which
-- nothing is missing before it if it does not; b and bt, the last Seq before
-- the log that is there was begun, and when that was taken.
--
-- Another process than the last time (a restart, a failover) may have
-- forgotten what was given out last, so it begins anew, above all that could
-- have been. To look takes longer than the rest; nothing fails over or is
-- started again within a quarter of a second.
local format = string.format
local function integer(n)
  return format('%d', n)
end

-- Returns the numbering as it stands: epoch, last Seq, time of the last frame,
-- the time now, the fields that a writer has to write, and the Seq after which
-- its first frame is. after is the Seq that the caller knows of, or 0.
local function number(key, log, after)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local c = redis.call('HMGET', key, 'e', 's', 't', 'v', 'r', 'h', 'p')
  local epoch, last, time, seen = tonumber(c[1]), tonumber(c[2]), tonumber(c[3]) or 0, tonumber(c[4])
  if c[1] and not (epoch and last and last >= epoch * 1000) then
    return nil
  end
  local ends = c[7] or ''
  local first = (epoch or 0) * 1000 + (tonumber(c[6]) or 0)
  -- Whether who began it knew of less than what the one before had given out.
  local known = last or 0
  local stop = tonumber(string.match(ends, '%d+$'))
  local lost = stop and after > stop and after < epoch * 1000
  local anew = not epoch or last < after or lost
  local fields = {}
  if not seen or now < seen or now - seen >= 10 then
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
    anew = anew or run ~= c[5]
    fields = {'v', integer(now), 'r', run}
  end
  if anew then
    if redis.call('EXISTS', log) == 1 then
      local info = redis.call('XINFO', 'STREAM', log)
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
          known = math.max(known, tonumber(string.match(info[i + 1], '%d+$')))
        end
      end
    end
    local hole = 0
    if lost or after > known or epoch and first > epoch * 1000 and last == first then
      hole = 1 -- or there was one, and nothing behind it yet
    end
    if hole == 1 or not epoch then
      ends = ''
    elseif last == first and ends ~= '' and #ends < 300 then
      ends = ends .. ' ' .. integer(last)
    else
      ends = integer(last)
    end
    epoch = math.max(now, math.floor(math.max(known, after) / 1000) + 1)
    first = epoch * 1000 + hole
    last = first
    for _, v in ipairs({'e', integer(epoch), 's', integer(last), 'h', integer(hole), 'p', ends}) do
      fields[#fields + 1] = v
    end
    redis.call('HDEL', key, 'b', 'bt')
  end
  return epoch, last, time, now, fields, first
end

local function expire(key, ttl)
  if ttl ~= '0' then
    redis.call('PEXPIRE', key, ttl)
  else
    redis.call('PERSIST', key)
  end
end
