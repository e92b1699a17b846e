//go:build linux

package main

import (
	"ssegate/bench/internal/load"
)

// Names of figures.
const (
	cpuEvent      = "cpu_us_event"
	cpuStream     = "cpu_us_stream"
	perSecond     = "events_second"
	streamsSecond = "streams_second"
	lateP50       = "late_p50_ms"
	lateP99       = "late_p99_ms"
	firstP50      = "first_p50_ms"
	firstP99      = "first_p99_ms"
	firstMax      = "first_max_ms"
	wholeP50      = "whole_p50_ms"
	wholeP99      = "whole_p99_ms"
	wholeMax      = "whole_max_ms"
	answerP99     = "answer_p99_ms"
	bytesClient   = "bytes_client"
	bytesUsed     = "bytes_client_used"
	residentMB    = "resident_mb"
	redisEvent    = "redis_us_event"
	rabbitEvent   = "rabbitmq_us_event"
)

// figure says how a number is shown.
type figure struct {
	title    string
	unit     string
	decimals int
}

// figures are all that is measured.
var figures = map[string]figure{
	cpuEvent:      {"CPU an event", "µs", 2},
	cpuStream:     {"CPU a stream", "µs", 0},
	perSecond:     {"events a second", "", 0},
	streamsSecond: {"streams a second", "", 0},
	lateP50:       {"late, median", "ms", 2},
	lateP99:       {"late, p99", "ms", 2},
	firstP50:      {"first event, median", "ms", 1},
	firstP99:      {"first event, p99", "ms", 1},
	firstMax:      {"first event, last client", "ms", 1},
	wholeP50:      {"whole, median", "ms", 1},
	wholeP99:      {"whole, p99", "ms", 1},
	wholeMax:      {"whole, last client", "ms", 1},
	answerP99:     {"answer, p99", "ms", 1},
	bytesClient:   {"resident a client", "B", 0},
	bytesUsed:     {"after a message each", "B", 0},
	residentMB:    {"resident in all", "MB", 1},
	redisEvent:    {"Redis CPU an event", "µs", 2},
	rabbitEvent:   {"RabbitMQ CPU an event", "µs", 2},
}

// figuresOf turns what was seen at the marks, and what the load saw, into
// figures.
func figuresOf(w *workload, marks map[string]sample, r load.Result) map[string]float64 {
	f := map[string]float64{}
	empty := marks["empty"].server.resident
	for mark, figure := range map[string]string{"full": bytesClient, "used": bytesUsed} {
		if full, ok := marks[mark]; ok {
			f[figure] = float64(full.server.resident-empty) / float64(w.plan.Clients)
			f[residentMB] = max(f[residentMB], float64(full.server.resident)/1e6)
		}
	}
	begin, end := marks["begin"], marks["end"]
	if _, ok := marks["end"]; !ok {
		return f
	}
	f[residentMB] = float64(end.server.resident) / 1e6
	if r.Events > 0 {
		n := float64(r.Events)
		f[cpuEvent] = (end.server.cpu - begin.server.cpu) * 1e6 / n
		f[perSecond] = n / r.Seconds
		for name, figure := range map[string]string{"redis": redisEvent, "rabbitmq": rabbitEvent} {
			if used, ok := end.others[name]; ok {
				f[figure] = (used.cpu - begin.others[name].cpu) * 1e6 / n
			}
		}
	}
	if w.rated != nil {
		n := w.rated(w.plan)
		f[cpuStream] = (end.server.cpu - begin.server.cpu) * 1e6 / n
		f[streamsSecond] = n / r.Seconds
	}
	for figure, v := range map[string]float64{
		lateP50: r.Late.P50, lateP99: r.Late.P99,
		firstP50: r.First.P50, firstP99: r.First.P99, firstMax: r.First.Max,
		wholeP50: r.Whole.P50, wholeP99: r.Whole.P99, wholeMax: r.Whole.Max,
		answerP99: r.Answer.P99,
	} {
		if v > 0 {
			f[figure] = v
		}
	}
	return f
}
