package ssegate.agent;

/** One event of the answer. The last one is finished. */
public record Result(String requestId, int messageId, String messageType, String agentType, String result, boolean finished) {
}
