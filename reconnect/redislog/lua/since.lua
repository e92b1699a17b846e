-- Returns the position that what was taken at a time or later follows: epoch
-- and Seq.
-- KEYS: the numbering, the log. ARGV: the time.
local c = redis.call('HMGET', KEYS[1], 'e', 's', 't', 'b', 'bt', 'h')
local epoch, last, taken = tonumber(c[1]), tonumber(c[2]), tonumber(c[3])
if not c[1] then
  return false
end
if not epoch or not last then
  return redis.error_reply('BROKEN numbering')
end
local t = tonumber(ARGV[1])

-- The position of an entry's last frame, its first Seq, and its time.
local function read(entry)
  local e, s = string.match(entry[1], '^(%d+)%-(%d+)$')
  local n, time = string.match(entry[2][1], '^%w%w%w%+(%d+)@(%d+)$')
  if not n then
    return nil
  end
  return tonumber(e), tonumber(s), tonumber(s) - tonumber(n) + 1, tonumber(time)
end

-- The newest numbering whose first entry is older than t, and the first entry
-- of the one after it.
local entry = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local firstEpoch, firstSeq
while entry do
  local newest = string.match(entry[1], '^%d+')
  local head = redis.call('XRANGE', KEYS[2], newest .. '-0', '+', 'COUNT', 1)[1]
  local e, s, first, time = read(head)
  local _, hi, _, tail = read(entry)
  if not time or not tail then
    return redis.error_reply('BROKEN entry')
  end
  if time < t then
    if tail < t then
      if firstEpoch then
        if t <= firstEpoch then -- a hole before it may be of that time
          firstSeq = firstEpoch * 1000 + 1
        end
        return {firstEpoch, firstSeq - 1}
      end
      entry = nil -- all that is kept is older
      break
    end
    -- Of the entries from s on to hi: the last that is older.
    local lo = s
    while true do
      local mid = lo + math.ceil((hi - lo) / 2)
      local _, at, from, when = read(redis.call('XRANGE', KEYS[2], newest .. '-' .. string.format('%.0f', mid), '+', 'COUNT', 1)[1])
      if not when then
        return redis.error_reply('BROKEN entry')
      end
      if when < t then
        lo = at
      elseif from - 1 <= lo then
        return {e, lo}
      else
        hi = from - 1
      end
      if hi <= lo then
        return {e, lo}
      end
    end
  end
  firstEpoch, firstSeq = e, first
  entry = redis.call('XREVRANGE', KEYS[2], '(' .. newest .. '-0', '-', 'COUNT', 1)[1]
end

if not firstEpoch then
  if last > epoch * 1000 and taken and taken >= t and redis.call('XLEN', KEYS[2]) == 0 then
    return {epoch, epoch * 1000} -- it was there
  end
  if c[6] == '1' and last == epoch * 1000 + 1 and t <= epoch then
    return {epoch, epoch * 1000} -- the hole may be of that time
  end
  return {epoch, last}
end
-- All that is kept is of that time. What is missing before it may be as well,
-- unless it is known to be older.
if firstSeq - 1 > firstEpoch * 1000 then
  local b, bt = tonumber(c[4]), tonumber(c[5])
  local hole = c[6] == '1' and firstSeq - 1 == epoch * 1000 + 1 and t > epoch -- which is older
  if firstEpoch ~= epoch or not hole and (not b or b ~= firstSeq - 1 or bt >= t) then
    return {firstEpoch, firstEpoch * 1000}
  end
end
return {firstEpoch, firstSeq - 1}
