-- Adds entries in order, and stops at the first that is refused.
-- KEYS: the log. ARGV: id, field and value of each entry.
for i = 1, #ARGV, 3 do
  local done = redis.pcall('XADD', KEYS[1], ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if done.err then
    return done
  end
end
return 'OK'
