-- No foreign key leads out of our schemas, and none takes rows along but what is part of a session: a user who is deleted elsewhere must
-- not take running sessions away.
select k.conrelid::regclass || ' ' || k.conname from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_class f on f.oid = k.confrelid
where k.contype = 'f' and c.relnamespace in ('agentapi'::regnamespace, 'agentapi_private'::regnamespace)
  and (f.relnamespace <> 'agentapi'::regnamespace or k.confupdtype <> 'a' or (k.confdeltype <> 'a' and not (k.confdeltype = 'c'
    and f.oid = 'agentapi.user_sessions'::regclass
    and c.oid in ('agentapi.spawns'::regclass, 'agentapi.egress_decisions'::regclass))));
-- caught:
alter table agentapi.users add foreign key (id) references auth.users (id);
-- caught:
alter table agentapi.memberships add constraint along foreign key (user_id) references agentapi.users (id) on delete cascade;
