-- wrk sends the requests of one slice file per thread (benchmarks/workload.py writes them) and reports as JSON.
--   wrk ... -s slices.lua URL -- PREFIX once|cycle DELAY_MS
-- With "once" nothing is sent twice: when the slice is used up its thread stops, and the report says so.

local threads = {}

function setup(thread)
   thread:set("number", #threads)
   table.insert(threads, thread)
end

function init(args)
   local file = assert(io.open(args[1] .. "." .. number, "rb"))
   local all = file:read("*a")
   file:close()
   requests, sent, used_up = {}, 0, 0
   cycle = args[2] == "cycle"
   delay_ms = tonumber(args[3])
   tried = number > 0
   local at = 1
   while at < #all do
      local a, b, c, d = all:byte(at, at + 3)
      local length = ((a * 256 + b) * 256 + c) * 256 + d
      requests[#requests + 1] = all:sub(at + 4, at + 3 + length)
      at = at + 4 + length
   end
   if delay_ms > 0 then
      delay = function() return delay_ms end
   end
end

function request()
   if not tried then -- wrk asks the first thread once to see what a request looks like, and does not send it
      tried = true
      return requests[1]
   end
   if sent == #requests then
      if not cycle then
         used_up = 1
         wrk.thread:stop()
         return "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
      end
      sent = 0
   end
   sent = sent + 1
   return requests[sent]
end

function done(summary, latency, all)
   local counts, used = {}, 0
   for _, thread in ipairs(threads) do
      counts[#counts + 1] = thread:get("sent")
      used = used + thread:get("used_up")
   end
   local errors = summary.errors
   io.write(string.format(
      '\nREPORT {"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "used_up": %d, "sent": [%s], '
         .. '"p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout, used, table.concat(counts, ","),
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
