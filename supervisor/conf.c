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
	{0}};
