-- Begins the scripts that number topics. The numbering is a hash: e and s, the
-- epoch and the last Seq that was given out; t, when; r, the Redis process that
-- gave it out, and v, when that was looked at; h, 1 if it begins with a hole,
-- that is, at 2, since frames are known to be lost; p, the Seqs after which
-- nothing is missing before it if it does not; q, the same of the numberings
-- before that got frames, each as epoch:p with commas; b and bt, the last Seq
-- before the log that is there was begun, and when that was taken.
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
-- the time now, the fields that a writer has to write, and whether it is new.
-- after is the Seq that the caller knows of, or 0.
local function number(key, log, after)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local c = redis.call('HMGET', key, 'e', 's', 't', 'v', 'r')
  local epoch, last, time, seen = tonumber(c[1]), tonumber(c[2]), tonumber(c[3]) or 0, tonumber(c[4])
  if c[1] and not (epoch and last and last >= epoch * 1000) then
    return nil
  end
  -- Whether who began it, or one before it, knew of less than what had been
  -- given out until then.
  local lost, earlier = false, nil
  if epoch and after > 0 and after < epoch * 1000 then
    local was = redis.call('HMGET', key, 'p', 'q')
    local stop = tonumber(string.match(was[1] or '', '%d+$'))
    lost = stop and after > stop
    for one in string.gmatch(was[2] or '', '%S+') do
      local begun, ends = string.match(one, '^(%d+):.-(%d+)$')
      if begun and after < begun * 1000 then -- the first that is above it
        if after > tonumber(ends) then
          lost, earlier = true, one
        end
        break
      end
    end
  end
  local anew = not epoch or last < after or lost
  local fields = {}
  if not seen or now < seen or now - seen >= 10 then
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
    anew = anew or run ~= c[5]
    fields = {'v', integer(now), 'r', run}
  end
  if anew then
    local known = last or 0
    if redis.call('EXISTS', log) == 1 then
      local info = redis.call('XINFO', 'STREAM', log)
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
          known = math.max(known, tonumber(string.match(info[i + 1], '%d+$')))
        end
      end
    end
    local was = redis.call('HMGET', key, 'h', 'p', 'q')
    local hole, ends, before = 0, '', was[3] or ''
    local had = was[2] or ''
    if lost or after > known or epoch and was[1] == '1' and last == epoch * 1000 + 1 then
      hole = 1 -- or there was one, and nothing behind it yet
    elseif epoch then
      ends = integer(last)
      if last == epoch * 1000 and had ~= '' then
        if #had > 300 then -- the first is where the last frame was
          had = string.gsub(had, '^(%d+) %d+', '%1', 1)
        end
        ends = had .. ' ' .. ends
      end
    end
    if earlier then -- that is known now
      local kept = {}
      for one in string.gmatch(before, '%S+') do
        if one ~= earlier then
          kept[#kept + 1] = one
        end
      end
      before = table.concat(kept, ' ')
    end
    if epoch and last > epoch * 1000 and had ~= '' and not (lost and not earlier) then
      before = before .. ' ' .. integer(epoch) .. ':' .. string.gsub(had, ' ', ',')
      while #before > 1000 do
        before = string.match(before, '^ ?%S+(.*)$')
      end
    end
    epoch = math.max(now, math.floor(math.max(known, after) / 1000) + 1)
    last = epoch * 1000 + hole
    for _, v in ipairs({'e', integer(epoch), 's', integer(last), 'h', integer(hole), 'p', ends, 'q', before}) do
      fields[#fields + 1] = v
    end
    redis.call('HDEL', key, 'b', 'bt')
  end
  return epoch, last, time, now, fields, anew
end

local function expire(key, ttl)
  if ttl ~= '0' then
    redis.call('PEXPIRE', key, ttl)
  else
    redis.call('PERSIST', key)
  end
end
