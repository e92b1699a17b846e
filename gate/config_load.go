package gate

// Notice is something that Load let pass but that its owner should know.
type Notice struct {
	Key  string // such as route[1].takeover
	Line int    // in the file; 0 where it does not come from there
	Text string
}
