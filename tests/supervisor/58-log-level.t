#!/usr/bin/env perl

# podctl log-level: what running daemons log, changed; all instances of a program, and what has no level.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my $merger = eg_bin('exportermerger');
my $pod = Pod->new(<<"CONF");
[program:merger]
command=$merger
numprocs=2
environment=MERGER_PORT=0,EXPORTERMERGER_LISTEN=%(here)s/http.%(process_num)d.sock
sockets=rpc=%(here)s/merger.%(process_num)d.sock
ready=rpc
[program:sleeper]
command=sleep 1000
startsecs=0
CONF
$pod->wait_state('merger.0' => 'RUNNING', 'merger.1' => 'RUNNING', sleeper => 'RUNNING');

my ($code, $out, $err) = $pod->ctl('log-level', 'debug', 'merger');
is $code, 0, 'exit code';
is $out, "merger.0: debug (was info)\nmerger.1: debug (was info)\n", 'all instances';
($code, $out) = $pod->ctl('log-level', 'WARNING', 'merger.1');
is $out, "merger.1: warn (was debug)\n", 'one of them';
($code, $out) = $pod->ctl('log-level', 'info', 'merger');
is $out, "merger.0: info (was debug)\nmerger.1: info (was warn)\n", 'each has its own';

($code, $out, $err) = $pod->ctl('log-level', 'loud', 'merger');
is $code, 64, 'no level';
like $err, qr/no such level: loud; debug, info, warn, error or fatal/, 'is said';
($code) = $pod->ctl('log-level', 'info', 'nobody');
is $code, 4, 'no such program';
($code, $out, $err) = $pod->ctl('log-level', 'info', 'sleeper', 'merger.0');
is $code, 1, 'a program that has none';
like $err, qr/no sleeper is running .*\n.*only a daemon of the pod/, 'is named';
is $out, "merger.0: info (was info)\n", 'the others are asked';
($code) = $pod->ctl('log-level', 'info');
is $code, 64, 'whose?';

is $pod->stop, 0;
done_testing;
