package ssegate.agent;

import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

import jakarta.annotation.PreDestroy;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.SseEmitter;

/** POST or GET /AutoAgent streams a plan, some steps and a result. GET /runs tells how often, and how it ended. */
@RestController
public class AgentController {
    private static final long TIMEOUT = TimeUnit.HOURS.toMillis(1);

    private final ScheduledExecutorService heartbeats = Executors.newScheduledThreadPool(2);
    private final ExecutorService agents = Executors.newCachedThreadPool();
    private final Runs runs;
    private final Duration heartbeat;
    private final Duration step;

    AgentController(Runs runs, @Value("${agent.heartbeat}") Duration heartbeat, @Value("${agent.step}") Duration step) {
        this.runs = runs;
        this.heartbeat = heartbeat;
        this.step = step;
    }

    @PostMapping("/AutoAgent")
    SseEmitter post(@RequestBody AgentRequest request,
                    @RequestHeader(name = "Last-Event-ID", required = false) String lastEventId) {
        return run(request, lastEventId);
    }

    @GetMapping("/AutoAgent")
    SseEmitter get(@RequestParam(required = false) String requestId, @RequestParam(required = false) String query,
                   @RequestParam(required = false) String agentType, @RequestParam(required = false) Integer steps,
                   @RequestHeader(name = "Last-Event-ID", required = false) String lastEventId) {
        return run(new AgentRequest(requestId, query, agentType, steps), lastEventId);
    }

    @GetMapping("/runs")
    Runs.Report report() {
        return runs.report();
    }

    private SseEmitter run(AgentRequest request, String lastEventId) {
        runs.start(request.requestId(), lastEventId);
        SseEmitter emitter = new SseEmitter(TIMEOUT);
        AtomicBoolean whole = new AtomicBoolean();
        ScheduledFuture<?> beat = startHeartbeat(emitter);
        var agent = agents.submit(() -> {
            try {
                answer(emitter, request);
                whole.set(true);
                emitter.complete();
            } catch (InterruptedException | IOException | IllegalStateException e) {
                emitter.completeWithError(e); // the client is gone
            }
        });
        emitter.onTimeout(emitter::complete);
        emitter.onCompletion(() -> { // however it ended
            beat.cancel(true);
            if (!whole.get()) {
                agent.cancel(true);
            }
            runs.end(!whole.get());
        });
        return emitter;
    }

    private ScheduledFuture<?> startHeartbeat(SseEmitter emitter) {
        return heartbeats.scheduleAtFixedRate(() -> {
            try {
                emitter.send("heartbeat");
            } catch (IOException | IllegalStateException e) {
                emitter.completeWithError(e);
            }
        }, heartbeat.toMillis(), heartbeat.toMillis(), TimeUnit.MILLISECONDS);
    }

    private void answer(SseEmitter emitter, AgentRequest request) throws IOException, InterruptedException {
        int id = 0;
        emitter.send(new Result(request.requestId(), ++id, "plan", request.agentType(), "计划：" + request.query(), false));
        for (int i = 1; i <= request.steps(); i++) {
            Thread.sleep(step.toMillis());
            emitter.send(new Result(request.requestId(), ++id, "agent_stream", request.agentType(), "第" + i + "步", false));
        }
        emitter.send(new Result(request.requestId(), ++id, "result", request.agentType(), "完成", true));
    }

    @PreDestroy
    void stop() {
        heartbeats.shutdownNow();
        agents.shutdownNow();
    }
}
