package ssegate.agent;

import java.util.Map;
import java.util.TreeMap;

import org.springframework.stereotype.Component;

/** Counts what the agent was asked to do. */
@Component
public class Runs {
    private final Map<String, Integer> requests = new TreeMap<>();
    private int started;
    private int finished;
    private int cancelled;
    private String lastEventId;

    /** As JSON: how many runs there were, how they ended, and the Last-Event-ID of the newest. */
    public record Report(int started, int running, int finished, int cancelled, Map<String, Integer> requests,
                         String last_event_id) {
    }

    synchronized void start(String requestId, String lastEventId) {
        started++;
        requests.merge(requestId, 1, Integer::sum);
        this.lastEventId = lastEventId;
    }

    synchronized void end(boolean cut) {
        if (cut) {
            cancelled++;
        } else {
            finished++;
        }
    }

    synchronized Report report() {
        return new Report(started, started - finished - cancelled, finished, cancelled, new TreeMap<>(requests), lastEventId);
    }
}
