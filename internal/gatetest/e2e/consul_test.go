package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// consulWorld speaks to a Consul agent as an operator would.
type consulWorld struct {
	t   *testing.T
	url string
}

func (c consulWorld) put(path, body string) {
	c.t.Helper()
	req, _ := http.NewRequest("PUT", c.url+path, strings.NewReader(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		c.t.Fatalf("PUT %s: %s", path, resp.Status)
	}
}

// passing counts the healthy instances of a service.
func (c consulWorld) passing(service string) int {
	resp, err := http.Get(c.url + "/v1/health/service/" + service + "?passing")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	var list []json.RawMessage
	json.NewDecoder(resp.Body).Decode(&list)
	return len(list)
}

// TestConsul: endpoints come from Consul and go with it, and nodes are
// registered there as long as they live.
func TestConsul(t *testing.T) {
	agent := service.Consul(t)
	c := consulWorld{t, agent.URL}
	b := NewBackend(t)
	n := Start(t, bin, "one", fmt.Sprintf("[cluster]\nconsul = %q\nheartbeat = \"1s\"\ndead_after = \"3s\"\n", agent.URL)+`
[[upstream]]
name = "backend"
service = "backend"
[[route]]
upstream = "backend"
`)
	get := func() *http.Response { return Do(t, Request{URL: n.URL + "/json"}).Resp }
	if r := get(); r.StatusCode != 503 {
		t.Fatalf("without an endpoint the answer is %d", r.StatusCode)
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(b.URL, "http://"), ":")
	c.put("/v1/agent/service/register", fmt.Sprintf(`{"ID":"b1","Name":"backend","Address":%q,"Port":%s,"Check":{"TTL":"60s","Status":"passing"}}`, host, port))
	Eventually(t, "the endpoint is found", func() bool { return get().StatusCode == 200 })
	c.put("/v1/agent/check/fail/service:b1", "")
	Eventually(t, "a failing endpoint is left alone", func() bool { return get().StatusCode == 503 })
	c.put("/v1/agent/check/pass/service:b1", "")
	Eventually(t, "it is back", func() bool { return get().StatusCode == 200 })

	Eventually(t, "the node is registered", func() bool { return c.passing("ssegate") == 1 })
	agent.Pause()
	if r := get(); r.StatusCode != 200 {
		t.Errorf("while Consul stands still the answer is %d", r.StatusCode)
	}
	agent.Resume()
	n.Term()
	if code := n.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	Eventually(t, "the node is gone from Consul", func() bool { return c.passing("ssegate") == 0 })
}
