package proxy

import "strings"

// redirect sends a new EventSource to a node that has fewer connections
// (RFC 9110 §15.4.8). Only one that has not been anywhere is sent, and only by
// GET, so nothing can be lost or run twice on the way.
func (st *streams) redirect(x *exchange, a asks) (answered bool) {
	if !st.p.cfg.Redirect || !a.eventSource || len(a.lastID) > 0 {
		return false
	}
	to := st.node.Lighter()
	if to == "" {
		return false
	}
	fields := []field{
		{"Location", strings.TrimSuffix(to, "/") + x.uri},
		{"Cache-Control", "no-store"},
	}
	if origin := x.header("Origin"); origin != "" {
		// A browser follows only where it may see that it is sent.
		fields = append(fields, field{"Access-Control-Allow-Origin", origin}, field{"Access-Control-Allow-Credentials", "true"}, field{"Vary", "Origin"})
	}
	st.p.counters.refused("redirected")
	x.reply(307, fields, nil)
	return true
}
