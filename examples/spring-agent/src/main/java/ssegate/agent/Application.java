package ssegate.agent;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/**
 * An agent that streams its answer: an ordinary Spring Boot service, with not one line about ssegate in it.
 *
 * <pre>
 * mvn -q package
 * java -jar target/spring-agent.jar --server.port=8000 --agent.heartbeat=10s
 * </pre>
 */
@SpringBootApplication
public class Application {
    public static void main(String[] args) {
        SpringApplication.run(Application.class, args);
    }
}
