-- What wrk asks for: files by their numbers, each thread all of them in an order of its own, again and again.
-- Arguments: how many files, what comes before a number, what comes behind it.

local thread_count = 0

function setup(thread)
    thread_count = thread_count + 1
    thread:set("seed", thread_count)
end

function init(arguments)
    math.randomseed(seed)
    requests = {}
    for number = 0, tonumber(arguments[1]) - 1 do
        local place = math.random(#requests + 1)
        local path = string.format("%s%06d%s", arguments[2], number, arguments[3] or "")
        table.insert(requests, place, wrk.format("GET", path))
    end
    at = 0
end

function request()
    at = at % #requests + 1
    return requests[at]
end

-- Counts: answers, microseconds, bytes, failures.
function done(summary, latency, answers)
    local errors = summary.errors
    local failures = errors.status + errors.connect + errors.read + errors.write + errors.timeout
    print(string.format("counts %d %d %d %d", summary.requests, summary.duration, summary.bytes, failures))
end
