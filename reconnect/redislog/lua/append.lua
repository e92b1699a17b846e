-- Adds entries in order, and stops at the first that is refused.
-- KEYS: the log. ARGV: 1 if there has to be a log; id, field and value of each
-- entry.
if ARGV[1] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
for i = 2, #ARGV, 3 do
  local done = redis.pcall('XADD', KEYS[1], ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if done.err then
    return done
  end
end
return 'OK'
