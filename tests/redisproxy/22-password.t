#!/usr/bin/env perl

# A server that begins to want a password: what clients without one could do before, they soon cannot.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

my $NOAUTH = qr/^NOAUTH /;

# Each case with a server of its own: how it begins, and is told later; what its clients see then.
for (
	[ 'a password is set', [], [qw(CONFIG SET requirepass pw)], $NOAUTH ],
	[ 'the default user is turned off', [], [qw(ACL SETUSER default off)], $NOAUTH ],
	[ 'a server without RESET', [ '--rename-command', 'RESET', '' ], [qw(CONFIG SET requirepass pw)], $NOAUTH ],
	[ "the proxy's own password is changed", [qw(--requirepass old)], [qw(CONFIG SET requirepass new)], qr/^WRONGPASS /, { REMOTE_PASSWORD => 'old' } ],
	[ 'what the default user may do is changed', [], [qw(ACL SETUSER default -get)], qr/^NOPERM / ])
{
	my ($name, $args, $change, $refusal, $env) = @$_;
	subtest $name => sub {
		# Its directory cannot be asked for without the password.
		my $redis = Redis::server(args => [ grep { !/^(?:--requirepass|old)$/ } @$args ]);
		my $admin = $redis->client;
		$admin->cmd(qw(CONFIG SET requirepass old)) if $env;
		$admin->cmd(qw(ACL SETUSER bob on >bobs ~* +@all));
		my $proxy = Redis::proxy($redis, args => ['--ping-interval=100ms'], env => $env // {});
		my $bob = $proxy->client;
		is $bob->cmd(qw(AUTH bob bobs)), 'OK', 'a client that has logged in';
		my @before = map { $proxy->client } 1 .. 4;
		my $resp3 = $proxy->client;
		$resp3->cmd(qw(HELLO 3));
		is $_->cmd(qw(SET secret s3)), 'OK', 'a client that has not' for @before, $resp3;
		is $before[0]->cmd(qw(SELECT 0)), 'OK';
		is $admin->cmd(@$change), 'OK', "@$change";
		# Both shared connections.
		for my $c (map { $proxy->client } 1 .. 4) {
			wait_for { (Redis::is_error($c->cmd(qw(GET secret))) // '') =~ $refusal } 'the refusal';
		}
		like Redis::is_error($_->cmd(qw(GET secret))), $refusal, 'those of before are refused as well' for @before;
		ok Redis::is_error($resp3->cmd(qw(GET secret))), 'with RESP3 too';
		my $wrong = $proxy->client;
		like Redis::is_error($wrong->cmd(qw(AUTH wrong))), qr/^WRONGPASS |^ERR AUTH /, 'a wrong password';
		like Redis::is_error($wrong->cmd(qw(GET secret))), $refusal, 'gets nothing';
		is $bob->cmd(qw(GET secret)), 's3', 'who has logged in goes on';
		is http('GET', $proxy->url . '/readyz')->{status}, 200, 'the server is there';
	};
}

done_testing;
