#include "supervisor/conf.h"

#include <stddef.h>

const struct config_row supervisor_rows[] = {
	{.flag = "config",
		.env = "SUPERVISOR_CONFIG",
		.type = CONFIG_PATH,
		.offset = offsetof(struct supervisor_conf, config),
		.def = "manifests/local/pod.conf",
		.section = "Supervisor",
		.help = "what to start: an INI file in supervisord's dialect"},
	{.flag = "shutdown-timeout",
		.env = "SUPERVISOR_SHUTDOWN_TIMEOUT",
		.type = CONFIG_MS,
		.offset = offsetof(struct supervisor_conf, shutdown_timeout_ms),
		.def = "0",
		.max = 3600e3,
		.help = "after SIGTERM: what is still there then is killed; in Kubernetes a few "
			"seconds less than terminationGracePeriodSeconds; 0: as long as the "
			"stopwaitsecs of programs that stop one after the other add up to"},
	{0}};
