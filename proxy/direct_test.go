package proxy

import "testing"

// TestDirect: what holds for requests that go through the transport's pool
// holds for those that get connections of their own.
func TestDirect(t *testing.T) {
	for name, f := range map[string]func(*testing.T){
		"target":      TestTargetStaysAsItIs,
		"request":     TestRequestHead,
		"requestID":   TestRequestID,
		"response":    TestResponseHead,
		"bodiless":    TestBodilessAnswers,
		"trailers":    TestTrailers,
		"pipelined":   TestPipelined,
		"unreachable": TestUnreachable,
		"tls":         TestTLSUpstream,
		"next":        TestNextEndpoint,
		"failures":    TestFailuresAreTold,
		"clients":     TestClientsFaults,
		"close":       TestClose,
		"heavy":       TestHeavyBodies,
		"unbuffered":  TestUnbuffered,
		"upload":      TestUploadUnbuffered,
		"early":       TestEarlyAnswer,
		"duplex":      TestDuplex,
		"unread":      TestUpstreamThatDoesNotRead,
		"closes":      TestUpstreamClosesDuringUpload,
		"expect":      TestExpectContinue,
		"interim":     TestInterimAnswers,
		"http10":      TestHTTP10,
		"cut":         TestUpstreamCut,
		"gone":        TestClientGone,
		"half":        TestHalfClosed,
		"limits":      TestBodyLimits,
		"headTimeout": TestHeadTimeout,
		"unreadToo":   TestClientThatDoesNotRead,
	} {
		t.Run(name, f)
	}
}
