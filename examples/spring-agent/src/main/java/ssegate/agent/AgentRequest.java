package ssegate.agent;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;

/** What the agent is asked. {@code steps} is how many pieces the answer has between the plan and the result. */
@JsonIgnoreProperties(ignoreUnknown = true)
public record AgentRequest(String requestId, String query, String agentType, Integer steps) {
    public AgentRequest {
        requestId = requestId == null ? "" : requestId;
        query = query == null ? "" : query;
        agentType = agentType == null ? "react" : agentType;
        steps = steps == null ? 3 : steps;
    }
}
