// Package service starts the real programs that ssegate's tests talk to: Redis, RabbitMQ, Consul, nginx and the two
// example backends. No test of ssegate uses a stand-in where one of these can run.
//
//	p := service.Redis(t)            // ended at the end of the test
//	p, err := service.StartRedis("") // for TestMain; then p.Close()
//
// Each [Proc] has ports and a folder of its own, listens on loopback only, and lives in a process group of its own, so
// that it can be paused, killed and started again as one thing, and ended by id, never by name. A process that is to
// outlive its test cannot: a small shell leads the group and kills it when the test binary is gone, however it went.
//
// A program that is not there is an error that names what to install, never a skip.
package service
