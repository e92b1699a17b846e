-- Begins the scripts that number topics. The numbering is a hash: e and s, the
-- epoch and the last Seq that was given out; t, when; r, the Redis process that
-- gave it out, and v, when that was looked at; b and bt, the last Seq before
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
-- the time now, and the fields that a writer has to write.
local function number(key, log, after)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local c = redis.call('HMGET', key, 'e', 's', 't', 'v', 'r')
  local epoch, last, time, seen = tonumber(c[1]), tonumber(c[2]), tonumber(c[3]) or 0, tonumber(c[4])
  if c[1] and not (epoch and last and last >= epoch * 1000) then
    return nil
  end
  local fields = {}
  if not seen or now < seen or now - seen >= 10 then
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
    if run ~= c[5] then
      after = math.max(after, last or 0)
      epoch = nil
    end
    fields = {'v', integer(now), 'r', run}
  end
  if not epoch or last < after then
    if redis.call('EXISTS', log) == 1 then
      local info = redis.call('XINFO', 'STREAM', log)
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
          after = math.max(after, tonumber(string.match(info[i + 1], '%d+$')))
        end
      end
    end
    epoch = math.max(now, math.floor(after / 1000) + 1)
    last = epoch * 1000
    fields[#fields + 1] = 'e'
    fields[#fields + 1] = integer(epoch)
    fields[#fields + 1] = 's'
    fields[#fields + 1] = integer(last)
    redis.call('HDEL', key, 'b', 'bt')
  end
  return epoch, last, time, now, fields
end

local function expire(key, ttl)
  if ttl ~= '0' then
    redis.call('PEXPIRE', key, ttl)
  else
    redis.call('PERSIST', key)
  end
end
